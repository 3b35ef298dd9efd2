"""A process of its own that talks to the hub named by HF_ENDPOINT; prints what it found as JSON. huggingface_hub reads its address at import."""

import json
import sys
import tiny
from rekd.errors import RekdError
from rekd.model import RationaleModel

METRICS = dict(dataset="toy reviews", examples=8, masks={"topk": dict(accuracy=0.75, selection_rate=0.25), "sampled": dict(accuracy=0.5, selection_rate=0.3)})


def there_and_back(kind):
    "Push a tiny model, load it by its hub id, compare."
    model, x = tiny.make_model(kind), "the good and the dull" if kind in tiny.TEXTS else tiny.images(1, 3)[0]
    model.metrics, model.picture = METRICS, b"\x89PNG, so to say"
    address = model.push_to_hub(f"user/{kind}")
    again = RationaleModel.from_pretrained(f"user/{kind}", revision="main")
    a, b = model.state_dict(), again.state_dict()
    return dict(address=str(address), same_weights=a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a), same_metrics=again.metrics == METRICS,
                same_picture=again.picture == model.picture, same_explanation=again.explain(x).to_dict() == model.explain(x).to_dict())


def complaint(f):
    try: f()
    except RekdError as e: return type(e).__name__, str(e)
    except Exception as e: return f"not ours: {type(e).__name__}", str(e)
    return None, "no error"


def errors():
    text, load = tiny.make_model("bert"), RationaleModel.from_pretrained
    return dict(load=complaint(lambda: load("user/none")), revision=complaint(lambda: load("user/bert", revision="gone")),
                push=complaint(lambda: text.push_to_hub("user/other")), token=complaint(lambda: text.push_to_hub("user/other", token="hf_wrong")))


if __name__ == "__main__": print(json.dumps(errors() if sys.argv[1] == "errors" else {kind: there_and_back(kind) for kind in sys.argv[1:]}))
