"""recipe_of: what a run would read and do, told before it reads."""

import os

from retr_hf.data.domain_folder import recipe_of


def test_a_recipe_changes_with_the_request_and_with_any_byte(tmp_path):
    log, folder = tmp_path / "log.csv", tmp_path / "many"
    (folder / "inner").mkdir(parents=True)
    log.write_text("a,b\n")
    (folder / "inner" / "one.txt").write_text("1")
    paths = [log, folder]
    recipe = recipe_of({"k_core": 5}, paths)
    assert recipe == recipe_of({"k_core": 5}, paths)
    assert recipe != recipe_of({"k_core": 4}, paths)
    state = log.stat()
    log.write_text("a,c\n")  # of the same size
    os.utime(log, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    changed = recipe_of({"k_core": 5}, paths)
    assert changed != recipe
    (folder / "inner" / "two.txt").write_text("")
    assert recipe_of({"k_core": 5}, paths) != changed
    assert recipe_of({"k_core": 5}, [tmp_path / "missing"]) == recipe_of({"k_core": 5}, [])  # the reader tells
