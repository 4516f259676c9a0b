"""Finding sound files: what is taken, in which order, and what is said of the rest."""

import pytest

from ser_strategies.data.finding import find_audio


def empty(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_deeply_and_in_order(tmp_path):
    names = ["b.flac", "a.wav", "deep/er/c.MP3", "d.ogg", "e.aiff", "f.opus", "g.w64"]
    empty(*(tmp_path / name for name in [*names, "notes.txt", "video.mp4", "wav"]))
    assert find_audio([str(tmp_path)]).paths == sorted(tmp_path / name for name in names)


def test_files_that_macos_leaves_beside_others_are_skipped(tmp_path):
    empty(tmp_path / "._a.wav", tmp_path / "a.wav", tmp_path / "deep" / "._b.wav")
    assert find_audio([str(tmp_path)]).paths == [tmp_path / "a.wav"]


def test_a_folder_named_like_a_sound_is_no_sound(tmp_path):
    empty(tmp_path / "takes.wav" / "a.wav")
    assert find_audio([str(tmp_path)]).paths == [tmp_path / "takes.wav" / "a.wav"]


def test_files_are_taken_as_they_are_in_the_order_given(tmp_path):
    empty(tmp_path / "z.wav", tmp_path / "a.sound", tmp_path / "deep" / "m.wav")
    given = [str(tmp_path / "z.wav"), str(tmp_path / "deep"), str(tmp_path / "a.sound")]
    assert find_audio(given).paths == [tmp_path / "z.wav", tmp_path / "deep" / "m.wav", tmp_path / "a.sound"]


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no file or folder at {tmp_path / 'none'}"):
        find_audio([str(tmp_path / "none")])


def test_a_folder_without_sound_is_named(tmp_path):
    empty(tmp_path / "notes.txt")
    with pytest.raises(
        FileNotFoundError,
        match=rf"no sound in {tmp_path} \(.*1 \.txt\): expected files that end in .*\.flac, ",
    ):
        find_audio([str(tmp_path)])


def test_what_is_left_out_of_a_folder_is_counted_by_kind_and_films_are_told_a_way(tmp_path):
    empty(*(tmp_path / name for name in ["a.wav", "b.txt", "deep/c.txt", "d.m4a", "README", ".hidden"]))
    found = find_audio([str(tmp_path)])
    assert found.others == {".txt": 2, ".m4a": 1, "": 1}
    assert found.left_out() == (
        "files in these folders that are no sound that can be read: 1 without an ending, 1 .m4a, 2 .txt; "
        "convert .m4a files first, as by `ffmpeg -i x.m4a x.wav`"
    )
    assert find_audio([str(tmp_path / "a.wav")]).left_out() == ""
