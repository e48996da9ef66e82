"""Known data sets as they come out of their archives: what is a clip, of which recording and category."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.datasets import find_data, load_dataset
from qincodec.core.errors import UserError


def make(root: Path, *names: str) -> Path:
    """A tree of short sounds."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".wav", ".flac"):
            soundfile.write(path, np.full(4410, 0.1), 44100)
        else:
            path.write_text("")
    return root


def found(data: str) -> dict[str, tuple[str, str | None]]:
    return {entry.id: (entry.recording, entry.category) for entry in find_data(data).entries}


def test_vctk(tmp_path: Path) -> None:
    names = [
        f"wav48_silence_trimmed/{s}/{s}_{n}_mic{m}.flac"
        for s in ("p225", "s5")
        for n in ("001", "002")
        for m in "12"
    ]
    root = make(tmp_path, *names, "txt/p225/p225_001.txt", "speaker-info.txt")
    folder = "wav48_silence_trimmed"
    assert found(f"vctk:{root}") == {
        f"{folder}/{s}/{s}_{n}_mic1": (s, "speech") for s in ("p225", "s5") for n in ("001", "002")
    }
    assert len(find_data(f"vctk:{root}").excluded) == 4
    older = make(tmp_path / "older", "wav48/p225/p225_001.wav", "wav48/p225/noise.wav")
    assert list(found(f"vctk:{older}").values()) == [("p225", "speech")]
    dataset = load_dataset(f"vctk:{older}")
    assert [clip.category for clip in dataset.clips] == ["speech"] and dataset.name == "vctk"
    assert dataset.notes == ["1 audio file that is not of VCTK is left out"]


def test_musdb(tmp_path: Path) -> None:
    songs = ("train/A Classic Education - NightOwl", "test/AM Contra - Heart Peripheral")
    stems = ("mixture", "vocals", "drums", "bass", "other")
    root = make(tmp_path / "hq", *(f"{song}/{stem}.wav" for song in songs for stem in stems))
    assert found(f"musdb:{root}") == {
        f"{song}/{stem}": (song.split("/")[1], stem) for song in songs for stem in stems
    }
    packed = make(tmp_path / "stems", *(f"{song}.stem.mp4" for song in songs))
    assert set(found(f"musdb:{packed}").values()) == {(song.split("/")[1], "mixture") for song in songs}


def test_daps(tmp_path: Path) -> None:
    places = ("clean", "ipad_balcony1")
    root = make(
        tmp_path, *(f"{p}/{s}_script{n}_{p}.wav" for p in places for s in ("f1", "m10") for n in (1, 2))
    )
    (root / "clean" / "._f1_script1_clean.wav").write_bytes(b"")  # as its archive has them
    assert found(f"daps:{root}") == {
        f"{p}/{s}_script{n}_{p}": (s, p) for p in places for s in ("f1", "m10") for n in (1, 2)
    }


def test_fsd50k(tmp_path: Path) -> None:
    audio = make(
        tmp_path, "FSD50K.eval_audio/37199.wav", "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/1.wav"
    )
    with pytest.raises(UserError, match=r"unpack FSD50K\.ground_truth beside the audio"):
        find_data(f"fsd50k:{audio}")
    truth = tmp_path / "FSD50K.ground_truth"
    truth.mkdir()
    (truth / "dev.csv").write_text(
        'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Plucked_string_instrument,Musical_instrument,Music",'
        '"/m/02sgy,/m/0342h,/m/0fx80y,/m/04szw,/m/04rlf",train\n'
    )
    (truth / "eval.csv").write_text(
        'fname,labels,mids\n37199,"Bark,Dog,Domestic_animals_and_pets,Animal","/m/a"\n'
    )
    assert found(f"fsd50k:{audio}") == {
        "FSD50K.dev_audio/64760": ("freesound-64760", "Music"),
        "FSD50K.eval_audio/37199": ("freesound-37199", "Animal"),
    }
    assert find_data(f"fsd50k:{audio}").excluded == [
        ("FSD50K.dev_audio/1", "has no labels in the ground truth")
    ]


def test_fsd50k_without_labels(tmp_path: Path) -> None:
    audio = make(tmp_path, "FSD50K.eval_audio/1.wav")
    (tmp_path / "eval.csv").write_text("fname,labels\n1,\n")
    assert found(f"fsd50k:{audio}") == {"FSD50K.eval_audio/1": ("freesound-1", None)}
    (tmp_path / "eval.csv").write_text("fname,labels\n1\n")
    with pytest.raises(UserError, match="line 2 has no labels; the table needs the columns fname and labels"):
        find_data(f"fsd50k:{audio}")


def test_refusals(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    for data, said in (
        (f"vctk:{tmp_path / 'nowhere'}", "give vctk:FOLDER with the folder of VCTK"),
        ("daps:", "give daps:FOLDER"),
        (f"musdb:{tmp_path}", "does not look like MUSDB18: no audio file has a name like train/"),
    ):
        with pytest.raises(UserError, match=said):
            find_data(data)
    with pytest.raises(UserError, match="leave out the recording pattern"):
        find_data(f"daps:{tmp_path}", recording_pattern="(a)")
