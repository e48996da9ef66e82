"""Loading ratings: every format, everything that real files get wrong, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rating_files import kinds, page, session, tidy, webmushra, write

from mushra.analysis.load import load
from mushra.analysis.ratings import natural_key, with_roles
from qincodec.core.errors import UserError

Shared = Callable[[str], Path]


def test_real_test_gives_the_published_figures(shared: Shared) -> None:
    """Check values of the AES 2023 test (BenjSta/ambisonics_param_coding_AES_2023)."""
    ratings = load([shared("mushra/AES2023_webmushra_results.csv")])
    assert len(ratings.frame) == 2288
    assert (len(ratings.listeners), len(ratings.items), len(ratings.conditions)) == (22, 13, 8)
    means = ratings.frame.groupby("condition")["score"].mean().round(3)
    assert means["reference"] == 96.385
    assert means["FOA"] == 78.441
    assert means["Param1"] == 75.175
    assert means["Mono"] == 19.549
    assert ratings.frame.loc[ratings.frame["condition"] == "Param1", "score"].median() == 82
    assert ratings.reference == "reference"
    assert ratings.anchors == ()
    assert ratings.problems == ()


def test_a_session_stored_twice_counts_once(tmp_path: Path) -> None:
    text = webmushra([session("a"), session("b", 70), session("a", time=970_000)])
    ratings = load([write(tmp_path, text)])
    assert len(ratings.frame) == 12
    assert kinds(ratings) == {"stored twice": 6}


@pytest.mark.parametrize("uuid", [True, False])
def test_a_double_click_under_two_ids_counts_once(tmp_path: Path, uuid: bool) -> None:
    text = webmushra([session("a", time=777), session("b", time=777)], uuid=uuid)
    ratings = load([write(tmp_path, text)])
    assert len(ratings.listeners) == 1
    assert kinds(ratings)["stored twice"] == 6


def test_equal_scores_at_other_times_are_two_people(tmp_path: Path) -> None:
    assert len(load([write(tmp_path, webmushra([session("a"), session("b")]))]).listeners) == 2


@pytest.mark.parametrize(
    ("score", "kind"),
    [
        *((score, "outside the scale") for score in ("101", "-1", "inf")),
        *((score, "no number") for score in ("good", "", "nan")),
    ],
)
def test_impossible_scores_are_left_out_and_reported(tmp_path: Path, score: str, kind: str) -> None:
    text = webmushra([session("a"), session("b", score)])  # type: ignore[arg-type]
    ratings = load([write(tmp_path, text)])
    assert len(ratings.frame) == 11
    assert kinds(ratings) == {kind: 1, "missing ratings": 1}
    detail = next(problem.detail for problem in ratings.problems if problem.kind == kind)
    assert "listener b" in detail
    assert f"'{score}'" in detail


def test_missing_conditions_and_items_are_reported(tmp_path: Path) -> None:
    people = [session("a"), session("b"), {"uuid": "c", "scores": {"t1": page(100, 20, 50)}}]
    people[0]["scores"]["t3"] = {"reference": 100, "codec@16": 80}
    ratings = load([write(tmp_path, webmushra(people))])
    assert kinds(ratings) == {"missing conditions": 1, "missing items": 3}


def test_a_repeated_trial_is_averaged(tmp_path: Path) -> None:
    text = webmushra([session("a", 60), {"uuid": "a", "scores": {"t1": page(90, 30, 80)}}])
    ratings = load([write(tmp_path, text)])
    t1 = ratings.frame[ratings.frame["item"] == "t1"].set_index("condition")["score"]
    assert t1.to_dict() == {"reference": 95, "anchor35": 25, "codec@16": 70}
    assert kinds(ratings) == {"rated twice": 6}


def test_two_stimuli_of_one_name_are_refused(tmp_path: Path) -> None:
    rows = [
        f"{who},{item},{c},{s}" for who in "ab" for item in "xy" for c, s in (("A", 10), ("A", 90), ("B", 50))
    ]
    path = write(tmp_path, "\n".join(["listener,item,condition,score", *rows]))
    with pytest.raises(UserError, match="condition 'A' is rated more than once on 100%"):
        load([path])


def test_several_sessions_of_a_listener_are_not_two_stimuli_of_one_name(tmp_path: Path) -> None:
    """Of two sessions of one of two people, in one of which a slider was never moved."""
    header = "listener,session,item,condition,score,moves"
    visits = (("a", "a1", 3), ("a", "a2", 0), ("b", "b1", 2))
    rows = [
        f"{who},{visit},{item},{name},{10 * n + number},{moves if name == 'C' else 1}"
        for number, (who, visit, moves) in enumerate(visits)
        for item in "xy"
        for n, name in enumerate("ABC", 1)
    ]
    ratings = load(write(tmp_path, "\n".join([header, *rows])))
    of_a = ratings.frame[(ratings.frame["listener"] == "a") & (ratings.frame["item"] == "x")]
    assert dict(zip(of_a["condition"], of_a["score"], strict=True)) == {"A": 10.5, "B": 20.5, "C": 30}
    assert kinds(ratings) == {"not given": 2, "rated twice": 8}
    # Within one session it still is one.
    twice = rows + [row.replace(",B,2", ",B,3") for row in rows if ",B," in row]
    with pytest.raises(UserError, match="condition 'B' is rated more than once on 100%"):
        load(write(tmp_path, "\n".join([header, *twice])))


def test_plus_that_became_a_space(tmp_path: Path) -> None:
    first = {"uuid": "a", "scores": {"drums+saw": page(100, 20, 50)}}
    second = {"uuid": "b", "scores": {"drums saw": page(100, 20, 50), "a b": page(100, 10, 30)}}
    ratings = load([write(tmp_path, webmushra([first, second]))])
    assert ratings.items == ("a b", "drums+saw")
    assert kinds(ratings)["lost plus"] == 3


def test_a_plus_is_lost_in_webmushras_csv_only(tmp_path: Path) -> None:
    """Two conditions "a b" and "a+b" of a data base, its JSON or a table of one's own are two."""
    from mushra.store.export import export, import_csv
    from mushra.store.pages import Rating
    from mushra.store.store import Store
    from mushra.store.whole_sessions import WholePage, WholeSession, add_whole

    scores = {"reference": 100.0, "a b": 20.0, "a+b": 60.0}
    rows = [Rating(name, score=score, time_ms=1.0) for name, score in scores.items()]
    with Store(tmp_path / "test.sqlite") as store:
        whole = WholeSession("t", "webmushra", "u", [], [WholePage("x", "mushra", False, rows)])
        store.write(lambda connection: add_whole(connection, whole))
        export(store, tmp_path / "tidy.csv", "tidy")
        export(store, tmp_path / "all.json", "json")
    own = "listener,item,condition,score\n" + "".join(f"u,x,{name},{n}\n" for name, n in scores.items())
    for source in (
        tmp_path / "test.sqlite",
        tmp_path / "tidy.csv",
        tmp_path / "all.json",
        write(tmp_path, own),
    ):
        ratings = load(source)
        assert dict(zip(ratings.frame["condition"], ratings.frame["score"], strict=True)) == scores, source
        assert ratings.problems == ()
    # Beside them, webMUSHRA's CSV has lost its plus.
    lossy = write(tmp_path, webmushra([{"uuid": "v", "scores": {"x": {"a b": 30}}}]), "m.csv")
    own = "listener,item,condition,score,test\nu,x,reference,100,test\nu,x,a+b,60,test\n"
    assert set(load([write(tmp_path, own), lossy]).frame["condition"]) == {"reference", "a+b"}

    # Several files
    # In a data base it stays lost in the sessions that were imported from there.
    with Store(tmp_path / "test.sqlite") as store:
        text = webmushra([{"uuid": "v", "scores": {"y": {"reference": 100, "c d": 30}, "z": {"c+d": 3}}}])
        assert import_csv(store, write(tmp_path, text.replace("test,", "t,"), "m.csv")) == (1, 0)
        export(store, tmp_path / "tidy.csv", "tidy")
        export(store, tmp_path / "all.json", "json")
    for source in ("test.sqlite", "tidy.csv", "all.json"):
        assert set(load(tmp_path / source).frame["condition"]) == {*scores, "c+d"}, source


def test_two_names_that_one_listener_rated_are_two_in_webmushras_csv_too(tmp_path: Path) -> None:
    scores = {"reference": 100, "a b": 20, "a+b": 60}
    ratings = load(write(tmp_path, webmushra([{"uuid": "v", "scores": {"x y": scores, "x+y": scores}}])))
    assert ratings.items == ("x y", "x+y") and set(ratings.conditions) == set(scores)
    assert ratings.problems == ()


def test_a_key_in_the_folder_knows_names_that_lost_their_plus(tmp_path: Path) -> None:
    source = write(tmp_path, webmushra([{"uuid": "v", "scores": {"x y": {"reference": 100, "abc": 20}}}]))
    key = {"trials": {"x+y": {"signals": {"abc": {"condition": "opus"}}}}}
    (tmp_path / "key.json").write_text(json.dumps(key))
    for given in (None, tmp_path / "key.json"):
        ratings = load(source, key=given)
        assert (ratings.items, ratings.conditions) == (("x+y",), ("reference", "opus")), given


def test_a_url_of_a_file_is_that_file(tmp_path: Path) -> None:
    from mushra.store.export import import_csv
    from mushra.store.store import Store

    source = write(
        tmp_path, webmushra([{"uuid": "v", "scores": {"x": {"reference": 100, "abc": 20}}}]), "m.csv"
    )
    with Store(tmp_path / "r.sqlite") as store:
        import_csv(store, source)
    (tmp_path / "key.json").write_text(
        json.dumps({"trials": {"x": {"signals": {"abc": {"condition": "opus"}}}}})
    )
    assert load(f"sqlite:///{tmp_path / 'r.sqlite'}").conditions == ("reference", "opus")


def test_listener_ids_in_two_files_must_be_explained(tmp_path: Path) -> None:
    one = write(tmp_path, tidy([("1", "x", "A", 10), ("1", "x", "B", 20)]), "one.csv")
    two = write(tmp_path, tidy([("1", "y", "A", 30), ("1", "y", "B", 40)]), "two.csv")
    with pytest.raises(UserError, match=r"--listener-ids global .* or --listener-ids per-file"):
        load([one, two])
    assert load([one, two], listener_ids="global").listeners == ("1",)
    assert load([one, two], listener_ids="per-file").listeners == ("one.csv:1", "two.csv:1")


def test_session_ids_are_one_person_in_all_files(tmp_path: Path) -> None:
    one = write(tmp_path, webmushra([session("a")]), "one.csv")
    two = write(tmp_path, webmushra([session("a"), session("b", 70)]), "two.csv")
    ratings = load([one, two])
    assert ratings.listeners == ("a", "b")
    assert kinds(ratings) == {"stored twice": 6}


def test_the_same_file_twice(tmp_path: Path) -> None:
    one = write(tmp_path, tidy([("1", "x", "A", 10), ("1", "x", "B", 20)]), "one.csv")
    ratings = load([one, one])
    assert len(ratings.frame) == 2
    assert kinds(ratings) == {"same file twice": 2}


# Choices


def test_several_tests_in_one_source(tmp_path: Path) -> None:
    text = webmushra([session("a")])
    other = webmushra([session("b")]).split("\n", 1)[1].replace("test,", "other,")
    path = write(tmp_path, text + other)
    with pytest.raises(UserError, match=r"several tests \(other, test\); choose with --test"):
        load([path])
    assert load([path], tests=["other"]).listeners == ("b",)
    assert load([path], tests=["other", "test"]).listeners == ("a", "b")
    with pytest.raises(UserError, match="test 'x' is not in the sources"):
        load([path], tests=["x"])


def test_items_of_the_training_can_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, webmushra([session("a")]))
    ratings = load([path], drop_items=["t1"])
    assert ratings.items == ("t2",)
    assert kinds(ratings) == {"dropped item": 3}
    with pytest.raises(UserError, match="item 'nope' cannot be dropped"):
        load([path], drop_items=["nope"])


def test_training_does_not_count(tmp_path: Path) -> None:
    scores = {"training_1": page(1, 2, 3), "t1": page(100, 20, 50)}
    path = write(tmp_path, webmushra([{"uuid": "a", "scores": scores}]))
    ratings = load([path])
    assert ratings.items == ("t1",)
    assert kinds(ratings) == {"training": 3}
    assert load([path], keep_training=True).items == ("t1", "training_1")
    with pytest.raises(UserError, match="--keep-training"):
        load([write(tmp_path, webmushra([{"uuid": "a", "scores": {"training": page(1, 2, 3)}}]))])


def test_key_resolves_opaque_names(tmp_path: Path) -> None:
    scores = {
        "t 1": {"reference": 100, "anchor35": 3, "k7": 70},
        "t2": {"reference": 99, "anchor35": 9, "z": 60},
    }
    path = write(tmp_path, webmushra([{"uuid": "a", "scores": scores}]))
    trials = {
        "t+1": {
            "signals": {"k7": {"condition": "opus@16", "file": "f"}, "reference": {"condition": "reference"}}
        },
        "t2": {"signals": {"z": {"condition": "opus@16"}}},
    }
    key = write(tmp_path, json.dumps({"trials": trials}), "key.json")
    ratings = load([path], key=key)
    assert ratings.items == ("t2", "t+1")
    assert ratings.systems == ("opus@16",)
    for text, message in (
        ('{"trials": {"t2": {"signals": {"z": {"condition": "A"}}}}}', "item 't 1' is not in the key"),
        (
            json.dumps({"trials": trials}).replace("k7", "k8"),
            "stimulus 'k7' of item 't\\+1' is not in the key",
        ),
        ("[]", "key"),
        ("{", "key"),
    ):
        with pytest.raises(UserError, match=message):
            load([path], key=write(tmp_path, text, "key.json"))


def test_roles_are_found_or_told(tmp_path: Path) -> None:
    names = ("Hidden Ref", "low", "mid", "A")
    path = write(tmp_path, tidy([("1", "x", name, 10) for name in names]))
    ratings = load([path], systems=["low", "mid"])
    assert (ratings.reference, ratings.anchors, ratings.mid_anchor) == ("Hidden Ref", (), None)
    ratings = load([path], anchors=["low", "mid"])
    assert (ratings.anchors, ratings.mid_anchor, ratings.systems) == (("low", "mid"), "mid", ("A",))
    assert ratings.conditions == ("Hidden Ref", "A", "mid", "low")
    with pytest.raises(UserError, match="condition 'nope' is not in the ratings; they hold A, Hidden Ref"):
        load([path], reference="nope")
    with pytest.raises(UserError, match="named twice"):
        load([path], reference="low", anchors=["low"])


def test_two_references_are_ambiguous(tmp_path: Path) -> None:
    path = write(tmp_path, tidy([("1", "x", name, 10) for name in ("ref", "reference")]))
    with pytest.raises(UserError, match="ref and reference both look like the same control"):
        load([path])
    with pytest.raises(UserError, match="reference looks like the hidden reference"):
        load([path], reference="ref")
    assert load([path], reference="ref", systems=["reference"]).systems == ("reference",)


@pytest.mark.parametrize(
    ("name", "anchors", "mid"),
    [
        *((name, (name,), None) for name in ("anchor_3500", "lp35", "LP3.5", "low_pass_3500", "Anchor")),
        *(
            (name, (name,), None)
            for name in ("lowpass_3.5kHz", "anchor35.wav", "3.5 kHz anchor", "lowpass35")
        ),
        *((name, (name,), name) for name in ("anchor70.wav", "lp70", "LP7", "anchor_7000", "7kHz-anchor")),
    ],
)
def test_names_of_anchors_that_say_which(tmp_path: Path, name: str, anchors: tuple[str], mid: str) -> None:
    path = write(tmp_path, tidy([("1", "x", what, 10) for what in ("reference.wav", name, "A")]))
    ratings = load([path])
    assert (ratings.reference, ratings.anchors, ratings.mid_anchor) == ("reference.wav", anchors, mid)
    assert [problem.kind for problem in ratings.problems] == ["control by name"] * ("nchor" not in name)
    assert name in load([path], systems=[name]).systems


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *((name, "an anchor") for name in ("anchor1", "Anchor 2", "3.5k", "7k", "LA", "MA", "low", "mid")),
        *((name, "an anchor") for name in ("low.wav", "lowpass_5k", "lp10", "spatial-anchor", "3500")),
        *(
            (name, "the hidden reference")
            for name in ("original", "uncompressed", "HR", "explicit_reference")
        ),
        *((name, "the hidden reference") for name in ("Original.wav", "reference_48k", "ref2")),
    ],
)
def test_names_that_may_be_a_controls_are_asked_about(tmp_path: Path, name: str, what: str) -> None:
    path = write(tmp_path, tidy([("1", "x", condition, 10) for condition in (name, "A", "B")]))
    option = "--anchor" if what == "an anchor" else "--reference"
    with pytest.raises(
        UserError, match=f"^{re.escape(name)} looks like {what}: give {option} {re.escape(name)} or"
    ):
        load([path])
    assert load([path], systems=[name]).systems == tuple(sorted(["A", "B", name], key=natural_key))
    told = load([path], systems=["all"])
    assert told.problems[-1].detail == f"'{name}' looks like {what} and counts as a system"
    controls = {"anchors": [name]} if what == "an anchor" else {"reference": name}
    assert load([path], **controls).systems == ("A", "B")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["LPC10", "opus@7", "mono", "refined", "HRTF", "lossless", "35", "midrange", "LAME", "slow", "mp3"],
)
def test_names_of_systems_are_not_asked_about(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, tidy([("1", "x", condition, 10) for condition in (name, "A")]))
    assert name in load([path]).systems


def test_a_key_says_what_is_a_system(tmp_path: Path) -> None:
    """`create` made the controls itself: a folder named lowpass5k is a system."""
    signals = {"abcdefgh": {"condition": "lowpass5k"}, "hgfedcba": {"condition": "opus"}}
    key = {"trials": {"x": {"signals": signals}}}
    rows = [("1", "x", name, 10.0 * k) for k, name in enumerate(("reference", *signals), start=1)]
    path = write(tmp_path, tidy(rows))
    assert load([path], key=write(tmp_path, json.dumps(key), "other.json")).systems == ("lowpass5k", "opus")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 5), (-4, 0)])
def test_scores_of_other_scales_are_asked_about(tmp_path: Path, low: float, high: float) -> None:
    scores = (high, (low + high) / 2, low)
    path = write(tmp_path, tidy([("1", "x", name, s) for name, s in zip("ABC", scores, strict=True)]))
    with pytest.raises(UserError, match=rf"within {low} to {high} .*--scale {low},{high} .*or --scale 0,100"):
        load([path])
    ratings = load([path], scale=(low, high))
    assert ratings.frame["score"].tolist() == [100, 50, 0]
    assert ratings.scale == (low, high) and kinds(ratings) == {"scale": 3}
    outside = load([path], scale=(low, (low + high) / 2))
    assert kinds(outside) == {"outside the scale": 1, "scale": 2}
    assert len(load([path], scale=(0, 100)).frame) == (3 if low >= 0 else 1)


def test_natural_order() -> None:
    names = ["opus@128", "opus@12.5", "Opus@8", "aac@64"]
    assert sorted(names, key=natural_key) == ["aac@64", "Opus@8", "opus@12.5", "opus@128"]


def test_our_data_base_and_its_exports(tmp_path: Path, shared: Shared) -> None:
    """The same ratings through our data base, its tidy CSV, its JSON and its webMUSHRA files."""
    from mushra.store.export import export, import_csv
    from mushra.store.store import Store

    source = shared("mushra/AES2023_webmushra_results.csv")
    expected = load([source]).matrix()
    with Store(tmp_path / "test.db") as store:
        import_csv(store, source)
        files = [
            *export(store, tmp_path / "all.csv", "tidy", everything=True).files,
            *export(store, tmp_path / "all.json", "json").files,
            *export(store, tmp_path / "csv", "webmushra").files,
        ]
    # As `mushra backup` leaves a data base that it was given alone.
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "test.db", tmp_path / "alone" / "results.sqlite")
    for path in (tmp_path / "test.db", tmp_path / "alone", *files):
        ratings = load([path])
        assert ratings.problems == (), path
        pd.testing.assert_frame_equal(ratings.matrix(), expected)
    pooled = load([tmp_path / "test.db", *files])
    assert len(pooled.frame) == 2288
    assert set(kinds(pooled)) <= {"same file twice", "stored twice"}


def test_training_pages_of_an_imported_file_do_not_count_either(tmp_path: Path) -> None:
    from mushra.store.export import import_csv
    from mushra.store.store import Store

    trained = session("a")
    trained["scores"] |= {"training1": page(100, 5, 5)}
    path = write(tmp_path, webmushra([trained, session("b", 70)]))
    expected = load([path])
    assert expected.items == ("t1", "t2")
    with Store(tmp_path / "test.db") as store:
        import_csv(store, path)
    pd.testing.assert_frame_equal(load([tmp_path / "test.db"]).matrix(), expected.matrix())


def test_only_what_counts_of_our_export(tmp_path: Path) -> None:
    header = "listener,item,condition,score,session,training,state,excluded,excluded_reason,begun_at"
    rows = ["a,x,'-6dB,50,a,false,finished,false,,now", "a,t,'-6dB,1,a,true,finished,false,,now"]
    rows += ["b,x,'-6dB,2,b,false,begun,false,,now", "c,x,'-6dB,3,c,false,finished,true,spoke,now"]
    rows += ["a,training_data,'-6dB,50,a,false,finished,false,,now"]
    ratings = load([write(tmp_path, "\n".join([header, *rows]))])
    assert ratings.frame[["listener", "condition", "score"]].to_numpy().tolist() == [["a", "-6dB", 50]] * 2
    assert ratings.items == ("training_data", "x")
    assert [problem.kind for problem in ratings.problems] == ["does not count"] * 3
    said = [problem.detail.partition(": ")[2] for problem in ratings.problems]
    assert said == [
        "training pages of 1 session left out",
        "1 session not finished left out",
        "1 session excluded by the experimenter left out",
    ]


def test_a_table_from_a_notebook_is_checked() -> None:
    good = pd.DataFrame([("a", "x", "A", 10.0)], columns=["listener", "item", "condition", "score"])
    assert with_roles(good).systems == ("A",)
    for bad, message in (
        (good.drop(columns="item"), "no column item"),
        (good.iloc[:0], "no rows"),
        (good.assign(score=101.0), "not numbers from 0 to 100"),
        (good.assign(score=float("nan")), "not numbers from 0 to 100"),
        (good.assign(score="10"), "not numbers from 0 to 100"),
        (pd.concat([good, good]), "listener a rated A of item x more than once"),
    ):
        with pytest.raises(UserError, match=message):
            with_roles(bad)
