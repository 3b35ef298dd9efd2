"The widget and the served page, where their extras are installed."
import socket
import sys
from unittest.mock import MagicMock

import pytest
import tiny

from rekd.cli import main
from rekd.errors import DataError, MissingError, ModelError, SettingError
from rekd.explore import explore, named_models


def test_models_have_names(text_model, image_model):
    assert list(named_models(text_model)) == ["the model"] and list(named_models([text_model, text_model])) == ["model 1", "model 2"]
    for wrong in ([], {}, "imdb-teacher", ["imdb-teacher"], None, [text_model, image_model]):
        with pytest.raises(SettingError): named_models(wrong)
    text_model.config.selects = False
    with pytest.raises(ModelError, match="no rationale"): named_models(text_model)


@pytest.mark.parametrize("package, command", [("ipywidgets", lambda m: explore(m, "good")), ("gradio", lambda m: __import__("rekd.serve").serve.make_app(m))])
def test_without_its_package_it_says_which(text_model, monkeypatch, package, command):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingError, match=f"pip install {package}"): command(text_model)


def test_explore_answers_what_is_asked(text_model):
    pytest.importorskip("ipywidgets")
    shown = explore({"a": text_model, "<b>": tiny.make_model("bigru")}, "good klm dull kala " * 3, sparsity=0.5)
    slider, box, out = shown.children
    assert slider.value == 50 and "<b>a</b>" in out.value and "&lt;b&gt;" in out.value
    marks = lambda: out.value.count("<mark")
    before = marks()
    slider.value = 100
    assert marks() == 24 > before
    box.value = "superb <script>"
    assert "superb" in out.value and "<script" not in out.value
    box.value = " "
    assert "nothing to explain" in out.value
    box.value = "\u200b"
    assert "nothing to read" in out.value # one line, and no traceback
    with pytest.raises(DataError, match="read texts"): explore(text_model, tiny.images(1, 0)[0])
    with pytest.raises(SettingError, match="sparsity"): explore(text_model, "good", sparsity=0)
    assert len(explore(tiny.make_model("vit"), tiny.images(1, 0)[0]).children) == 2 # no box for a picture


def test_served_page_answers_a_client(text_model):
    pytest.importorskip("gradio")
    client = pytest.importorskip("gradio_client")
    from rekd.serve import make_app
    app = make_app({"a": text_model, "b": tiny.make_model("bigru")}, ["good klm"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    app.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, share=False)
    try:
        ask = client.Client(f"http://127.0.0.1:{port}", verbose=False)
        html, data = ask.predict("good klm dull <img src=x>", 50, api_name="/explain")
        want = text_model.explain("good klm dull <img src=x>", sparsity=0.5)
        assert data["a"]["label"] == want.label and data["a"]["mask"] == want.mask and "<img" not in html and "<mark" in html
        html, data = ask.predict("  ", 50, api_name="/explain")
        assert "nothing to explain" in html and data == {}
    finally: app.close()


def test_served_page_listens_to_every_change(text_model, monkeypatch):
    "A slider has keys, a box for a number and a reset button beside the mouse. Here gradio is a stub that notes what it is asked for."
    gradio = MagicMock()
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    from rekd.serve import make_app
    make_app({"a": text_model})
    (first,), _ = gradio.HTML.call_args
    assert "nothing to explain" in first
    for part in (gradio.Textbox.return_value, gradio.Slider.return_value):
        drawn, data = part.change.call_args.kwargs["fn"]("good klm dull kala", 50)
        assert "<mark" in drawn and sum(data["a"]["mask"]) == 2


def test_serve_refuses_in_one_line(tmp_path):
    tiny.make_model("bert").save_pretrained(tmp_path / "m")
    for command, says in ((["serve", "m", "--port", "0"], "--port must be"), (["serve", "gone"], "gone")):
        with pytest.raises(SystemExit, match=says): main(command)


@pytest.mark.parametrize("magic", ["", "%matplotlib inline\n"])
def test_figures_and_explanations_draw_themselves_in_a_notebook(tmp_path, magic):
    "In a kernel: a plot without a magic or with one, once; a list of explanations; one line where there is only text."
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    tiny.make_model("bert").save_pretrained(tmp_path / "m")
    code = [magic + "from rekd.plot import plot_shares, plot_curves\nrow = dict(epoch=0, temperature=1., sparsity_target=.1, train=dict(ce=1.), val=dict(accuracy=.5))\nplot_curves(dict(CLS=[row, row]))",
            f"from rekd.model import RationaleModel\nmodel = RationaleModel.from_pretrained({str(tmp_path / 'm')!r})\nmodel.explain(['good klm', 'dull'])", "print(model.explain('good klm'))"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in code])
    client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    figure, many, one = ([o for o in c.outputs if o.output_type != "stream" or o.name == "stdout"] for c in notebook.cells)
    assert len(figure) == 1 and "image/png" in figure[0]["data"]
    assert many[0]["data"]["text/html"].count("<div style=\"margin") == 2 and isinstance(many[0]["data"]["text/plain"], str)
    assert one[0]["text"].startswith("Explanation(") and one[0]["text"].count("\n") == 1 and len(one[0]["text"]) < 200
