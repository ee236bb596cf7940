"""Descriptions of clusters: a file that people edit, so it must keep what they wrote and name what they got wrong."""

import shutil

import pytest

from interp_lib import InterpError
from interp_lib.clusters.descriptions import DESCRIPTIONS, read_descriptions, write_description
from interp_lib.runs.checks import verify_run
from interp_lib.runs.folder import SHIPPED_FILES, read_run
from interp_lib.runs.release import release_run


def test_what_is_written_is_read_again(tmp_path):
    assert read_descriptions(tmp_path, 8) == {}
    write_description(tmp_path, 3, "Waits: the gate\nis locked.", 8)
    write_description(tmp_path, 0, "Geht nach rechts – zur Lücke", 8)
    write_description(tmp_path, 5, "yes", 8)
    expected = {0: "Geht nach rechts – zur Lücke", 3: "Waits: the gate is locked.", 5: "yes"}
    assert read_descriptions(tmp_path, 8) == expected and list(read_descriptions(tmp_path, 8)) == [0, 3, 5]
    assert (tmp_path / DESCRIPTIONS).read_text().startswith("# What the agent does")
    write_description(tmp_path, 3, "  ", 8)
    assert read_descriptions(tmp_path, 8) == {0: expected[0], 5: "yes"}
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTIONS]


def test_what_people_wrote_around_it_is_kept(tmp_path):
    by_hand = (
        "# seen on 40 clips\n0: goes right  # mostly\n\n# rare:\n4: >\n  turns\n  round\n"
        "\n# to do\n6:\n7: 'ends: here'\n"
    )
    (tmp_path / DESCRIPTIONS).write_text(by_hand)
    assert read_descriptions(tmp_path, 8) == {0: "goes right", 4: "turns round", 7: "ends: here"}
    write_description(tmp_path, 0, "goes left", 8)
    write_description(tmp_path, 2, "jumps", 8)
    write_description(tmp_path, 4, "turns", 8)
    write_description(tmp_path, 6, "shoots", 8)
    write_description(tmp_path, 7, "", 8)
    text = (tmp_path / DESCRIPTIONS).read_text()
    assert text == (
        "# seen on 40 clips\n0: goes left  # mostly\n\n# rare:\n2: jumps\n4: turns\n\n# to do\n6: shoots\n"
    ), text


def test_removing_a_sentence_leaves_the_comments_after_it(tmp_path):
    (tmp_path / DESCRIPTIONS).write_text("0: goes right\n# rare:\n4: turns  # sure?\n5: jumps\n")
    for k in (0, 4, 5):
        write_description(tmp_path, k, "", 8)
    text = (tmp_path / DESCRIPTIONS).read_text()
    assert read_descriptions(tmp_path, 8) == {} and "# rare:\n" in text and "# sure?\n" in text and "5" not in text
    write_description(tmp_path, 4, "turns", 8)
    assert read_descriptions(tmp_path, 8) == {4: "turns"}


@pytest.mark.parametrize(
    "before", ["{0: a, 3: b}", "0: a\n3: b", "# only a comment\n", "", "3: b\n0: a\n", "---\n0: a\n3: b\n...\n"]
)
@pytest.mark.parametrize("k", [0, 1, 3, 7])
def test_every_form_of_file_can_be_added_to(tmp_path, before, k):
    (tmp_path / DESCRIPTIONS).write_text(before)
    old = read_descriptions(tmp_path, 8)
    write_description(tmp_path, k, "new", 8)
    assert read_descriptions(tmp_path, 8) == {**old, k: "new"}
    assert ("only a comment" in before) == ("only a comment" in (tmp_path / DESCRIPTIONS).read_text())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0: goes: left\n", "line 1: .*in quotes"),
        ("8: too many\n", "cluster 8: this agent has 0 to 7"),
        ("left: goes\n", "cluster 'left'"),
        ("true: goes\n", "cluster true"),
        ("1: 5\n", "no text .5.. Put it in quotes"),
        ("1: [a]\n", "no text"),
        ("just a sentence", "no descriptions"),
        ("- a\n- b\n", "no descriptions"),
        ("1: a\n1: b\n", "twice"),
        ("? [1]\n: a\n", r"descriptions\.yml"),
        ("0: !!python/object:os.system x\n", r"descriptions\.yml"),
    ],
)
def test_damage_is_named_in_one_line_and_left_alone(tmp_path, content, message):
    (tmp_path / DESCRIPTIONS).write_text(content)
    for act in (lambda: read_descriptions(tmp_path, 8), lambda: write_description(tmp_path, 0, "new", 8)):
        with pytest.raises(InterpError, match=message) as raised:
            act()
        assert "\n" not in str(raised.value)
    assert (tmp_path / DESCRIPTIONS).read_text() == content


def test_bytes_that_are_no_text_and_wrong_places_are_named(tmp_path):
    (tmp_path / DESCRIPTIONS).write_bytes(b"0: \xff\xfe\n")
    with pytest.raises(InterpError, match="not UTF-8"):
        read_descriptions(tmp_path, 8)
    with pytest.raises(InterpError, match="no cluster 8: this agent has 0 to 7"):
        write_description(tmp_path, 8, "x", 8)
    with pytest.raises(InterpError, match="no run folder"):
        write_description(tmp_path / "none", 0, "x", 8)


def test_a_release_takes_descriptions_along_but_no_earlier_weights_and_may_be_described_later(tiny_sppo, tmp_path):
    run_dir = tmp_path / tiny_sppo.name
    shutil.copytree(tiny_sppo, run_dir)
    write_description(run_dir, 1, "goes up", 8)
    shutil.copytree(tiny_sppo, run_dir / "steps/000000384")  # of --keep-every: stays here
    released = release_run(run_dir, tmp_path / "released", {})
    assert {path.name for path in released.path.iterdir()} == {*SHIPPED_FILES} - {"returns.csv"}
    assert read_descriptions(released.path, 8) == {1: "goes up"}
    write_description(released.path, 2, "goes down", 8)
    assert verify_run(read_run(released.path)) == []
