"""Forty faults that were found by using the library, and where each one's kind is tested: this page names the tests, and fails when one is gone.

`pytest tests/test_faults*.py` runs them all."""

import ast
from pathlib import Path
import pytest

FAULTS = {
    "1 values of a table are guessed": ["data:a_value_of_a_text_file_is_the_string_that_stands_there", "data:classes_do_not_depend_on_where_a_word_stands", "data:json_lines_keep_their_types"],
    "2 positions win over names": ["data:a_label_that_is_a_name_is_that_class", "data:positions_are_for_all_parts_or_none"],
    "3 a name that means two things": ["data:a_name_that_means_two_things_is_refused"],
    "4 a page's sample is no sample": ["report:examples_are_a_stratified_sample_with_a_seed", "report:headline_is_what_evaluate_says"],
    "5 old data after a change": ["data:new_rows_in_an_old_file_are_read", "data:another_tokenizer_of_the_same_name_tokenizes_anew"],
    "6 a run forgets where its data are": ["data:a_run_remembers_its_data", "data:a_row_of_a_named_data_set_holds_no_path"],
    "7 labels that look alike": ["data:labels_that_look_alike", "data:a_blank_label_is_a_missing_one"],
    "8 padding leaks": ["net:a_network_that_breaks_the_contract_is_refused_by_name_and_number", "net:a_texts_answer_depends_on_the_text_alone"],
    "9 a network with a memory": ["net:a_network_that_breaks_the_contract_is_refused_by_name_and_number"],
    "10 words without effect": ["net:a_row_of_the_table_of_networks", "net:a_decoder_in_an_encoders_clothes"],
    "11 hidden colours": ["net:what_is_transparent_is_white_whatever_colour_it_hides", "net:half_transparent_and_opaque_pixels"],
    "12 pixels scaled otherwise than in pretraining": ["net:pixels_are_scaled_as_the_weights_were_trained", "net:timm_says_how_its_networks_were_trained"],
    "13 rows of other settings are called done": ["preset:rows_of_other_settings_are_not_called_done"],
    "14 the generator reads before the final norm": ["net:the_generator_may_read_the_networks_last_hidden_state", "net:a_model_of_before_has_no_final_norm"],
    "15 hard takes the teacher's class": ["train:hard_keeps_the_teachers_classes_soft", "train:hard_differs_from_soft_in_the_rationale_loss_alone"],
    "16 trained, and cannot be saved": ["train:what_cannot_be_saved_is_refused_before_the_first_step", "net:weights_that_are_views_of_one_storage"],
    "17 saved, and cannot be loaded": ["net:what_could_not_be_loaded_again_is_not_saved", "net:halved_and_damaged_buffers"],
    "18 built, and fails at the first input": ["net:what_cannot_be_used_is_refused_in_one_line_when_it_is_built", "net:an_encoder_decoder_reads_with_its_encoder"],
    "19 a compiled part": ["net:a_compiled_part_is_saved_under_the_plain_names", "train:what_lies_otherwise_in_memory_is_saved_and_loaded"],
    "20 what is wrong is not where it is said": ["data:a_row_without_a_text_is_named_by_its_line", "data:a_damaged_picture_is_found_when_it_is_read"],
    "21 evidence of one's own": ["data:evidence_that_is_not_erasers_is_ignored", "data:evidence_in_erasers_form_comes_with_the_classes_of_the_data"],
    "22 a cache that cannot be written": ["data:a_cache_that_cannot_be_written_is_named_and_not_the_data"],
    "23 raw errors": ["report:attribution_inside_inference_mode", "train:half_weights_are_refused_with_the_remedy", "net:a_huge_picture_is_read_or_called_huge", "report:picture_in_a_terminal"],
    "26 silence": ["train:a_script_hears_of_a_long_training_and_not_of_a_short_one"],
    "27 a part of one's own": ["net:a_network_from_a_plugin_is_trained_saved_and_loaded", "train:an_objective_of_ones_own_trains_by_name", "preset:a_plugins_objective_has_a_name_everywhere"],
    "28 a random table that is frozen": ["net:a_random_word_table_is_not_frozen_unless_asked"],
    "29 kinds of files": ["data:kinds_of_files", "data:a_folder_of_classes", "data:one_file", "data:measuring_reads_the_test_part_alone"],
    "30 an end that says nothing": ["train:ctrl_c_on_the_command_line_is_one_line_and_code_130", "train:a_finished_run_keeps_its_result_and_not_its_optimizer"],
    "32 to 34 the best of several looks": ["claims:the_best_of_several_looks_is_corrected", "claims:holm"],
    "35 a recovery without its interval": ["claims:gap_recovery_stands_with_its_interval", "claims:the_page_s_gap_recovery"],
    "37 a baseline that is missing": ["train:cls_learns_from_what_its_teacher_says_to_a_user", "train:cls_has_a_teacher_only_if_it_is_named"],
    "38 kept before the goal": ["train:the_kept_epoch_is_at_the_goal", "claims:how_many_of_our_runs_were_kept_too_early"],
    "40 a rerun reads other data": ["preset:every_study_that_has_rows_says_what_they_were_made_from", "preset:other_data_or_weights_are_told"],
} # 24 and 25 are of the package, 31 is tests/test_links.py, 36 and 39 stand in the pages' own asserts


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_its_tests(fault):
    for name in FAULTS[fault]:
        file, _, test = name.partition(":")
        source = (Path(__file__).parent / f"test_faults_{file}.py").read_text(encoding="utf-8")
        assert f"test_{test}" in [f.name for f in ast.walk(ast.parse(source)) if isinstance(f, ast.FunctionDef)], name


def test_a_dash_begins_a_text():
    from rekd.cli import joined
    assert joined(["explain", "m", "--text", "-awful"]) == ["explain", "m", "--text=-awful"]
    assert joined(["explain", "m", "--text", "--not a word of it"]) == ["explain", "m", "--text=--not a word of it"]
    assert joined(["explain", "m", "--text", "--html", "x.html"]) == ["explain", "m", "--text", "--html", "x.html"]
