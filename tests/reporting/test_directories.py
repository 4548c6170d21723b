"""An output directory is taken, kept or emptied as asked, and nothing but a run is ever deleted."""

import pytest

from potstill.errors import OutputError, RunExistsError, UsageError
from potstill.reporting import claim_directory


def make_run(path):
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "last.pt").touch()
    (path / "config.yaml").write_text("seed: 0\n")
    return path


def test_an_absent_or_empty_directory_is_taken(tmp_path):
    claimed = claim_directory(tmp_path / "a" / "b")
    assert claimed.is_dir()
    assert not list(claim_directory(claimed).iterdir())


def test_a_run_is_refused_and_the_ways_out_are_named(tmp_path):
    make_run(tmp_path / "out")
    with pytest.raises(RunExistsError, match=r"'out' already holds a run\. Use --resume .* --overwrite"):
        claim_directory(tmp_path / "out")


def test_resume_keeps_and_overwrite_deletes(tmp_path):
    run = make_run(tmp_path / "out")
    claim_directory(run, resume=True)
    assert (run / "checkpoints" / "last.pt").exists()
    claim_directory(run, overwrite=True)
    assert not list(run.iterdir())


def test_overwrite_follows_no_link(tmp_path):
    run = make_run(tmp_path / "out")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    (run / "link").symlink_to(precious)
    claim_directory(run, overwrite=True)
    assert (precious / "thesis.txt").exists()
    assert not (run / "link").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_files_are_never_deleted(tmp_path, overwrite):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunExistsError, match="no Potstill run"):
        claim_directory(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").exists()


def test_images_are_never_deleted_even_beside_a_config(tmp_path):
    run = make_run(tmp_path / "photos")
    (run / "train" / "cats").mkdir(parents=True)
    (run / "train" / "cats" / "1.JPG").touch()
    with pytest.raises(RunExistsError, match=r"holds an image \('1\.JPG'\)"):
        claim_directory(run, overwrite=True)
    assert (run / "config.yaml").exists()


def test_both_flags_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Choose one"):
        claim_directory(tmp_path, overwrite=True, resume=True)


def test_a_directory_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"'out' cannot be used") as caught:
        claim_directory(tmp_path / "file" / "out")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(OutputError, match="'file' cannot be used"):
        claim_directory(tmp_path / "file")
