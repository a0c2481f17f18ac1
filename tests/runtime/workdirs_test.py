# SPDX-License-Identifier: Apache-2.0
"""The records of a workdir: what may change, what damage does, and who writes."""

import copy
import hashlib
import json
import random
import subprocess

import pytest

from configs import smoke
from trm_jax.errors import CheckpointError, ConfigError, error_of
from trm_jax.runtime import processes
from trm_jax.runtime import workdir as workdirs
from trm_jax.runtime.metric_writer import MetricWriter
from trm_jax.version import git_commit, sources_digest, versions

CONFIG = smoke.get_config().to_dict()
DATASET = {
    "sizes": {"num_puzzles": 48, "grid_shape": [4, 4]},
    "train": {"sha256": "5fe1"},
}
STEPS = [5, 10, 15, 20]
FILES = ["config.json", "dataset.json", "runs.jsonl", "metrics.jsonl"]
OTHERS = {
    "seed": 1,
    "data.seed": 1,
    "data.source": "csv",
    "model.dtype": "bfloat16",
    "model.d_model": 64,
    "model.layers": ("attention", "swiglu"),
    "optim.lr": 1e-3,
    "optim.ema_ramp": False,
    "rule.name": "hrm",
    "rule.trm.l_cycles": 3,
    "train.batch_size": 16,
}
ALLOWED = {
    "data.train": "elsewhere.csv",
    "train.steps": 800,
    "train.log_every": 1,
    "train.micro_batches": 2,
    "train.on_non_finite": "skip",
    "train.on_save_error": "continue",
    "eval.votes": 4,
    "mesh.data": 1,
    "mesh.fsdp": 2,
}


def changed(key, value):
    config = copy.deepcopy(CONFIG)
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    assert section[name] != value
    section[name] = value
    return config


def as_stored(config):
    return json.loads(json.dumps(config))


def stored(folder, name="config.json"):
    record = json.loads((folder / name).read_text())
    assert len(record.pop("checksum")) == 64
    return record


@pytest.fixture
def folder(tmp_path):
    """A workdir with a checkpoint and some lines."""
    workdirs.claim(tmp_path, CONFIG, DATASET)
    workdirs.record_run(tmp_path, 0)
    writer = MetricWriter(tmp_path, step=0)
    for step in STEPS:
        writer.write({"step": step, "train/loss": 1.5 / step})
    writer.close()
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    return tmp_path


def resume(folder):
    """Use the files as train.py does; return the steps of the lines that it keeps."""
    workdirs.claim(folder, CONFIG, DATASET)
    workdirs.record_run(folder, 20)
    writer = MetricWriter(folder, step=20)
    writer.close()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def attempt(folder):
    """The steps that `resume` keeps, and the message if it is refused."""
    try:
        return resume(folder), None
    except (ConfigError, CheckpointError) as error:
        return [], str(error)


@pytest.mark.parametrize("missing", ["optim.table_only_steps", "rule.urm"])
def test_a_setting_that_an_older_run_lacks_has_its_default(folder, missing):
    section, name = missing.split(".")
    older = stored(folder)
    default = older[section].pop(name)
    workdirs.write_record(folder / "config.json", older)
    config, _ = workdirs.read_run(folder)
    assert as_stored(config[section][name]) == default
    workdirs.claim(folder, CONFIG, DATASET)
    assert stored(folder) == as_stored(CONFIG)


@pytest.mark.parametrize("key", OTHERS)
def test_another_config_is_refused_with_a_diff(folder, key):
    with pytest.raises(ConfigError) as info:
        workdirs.claim(folder, changed(key, OTHERS[key]), DATASET)
    (line,) = str(info.value).splitlines()[1:]
    assert line.strip().startswith(f"{key}: ")
    assert line.endswith(f" -> {as_stored(OTHERS[key])}")
    assert stored(folder) == as_stored(CONFIG)


@pytest.mark.parametrize("key", ALLOWED)
def test_what_may_change_is_recorded_anew(folder, key):
    config = changed(key, ALLOWED[key])
    workdirs.claim(folder, config, DATASET)
    assert stored(folder) == as_stored(config)


def test_other_data_is_refused_with_a_diff(folder):
    other = DATASET | {"train": {"sha256": "5fe2"}}
    with pytest.raises(ConfigError, match=r"dataset.json(.|\n)*sha256: 5fe1 -> 5fe2"):
        workdirs.claim(folder, CONFIG, other)
    assert stored(folder, "dataset.json") == DATASET


def test_a_fact_that_older_records_of_the_data_lack_is_added(folder):
    more = DATASET | {"sizes": DATASET["sizes"] | {"box_shape": [2, 2]}}
    workdirs.claim(folder, CONFIG, more)
    assert stored(folder, "dataset.json") == more
    with pytest.raises(ConfigError, match=r"sizes.box_shape: \[2, 2\] -> \(absent\)"):
        workdirs.claim(folder, CONFIG, DATASET)


@pytest.mark.parametrize("name", FILES[:2])
def test_a_changed_record_is_not_read(folder, name):
    """Every flipped bit shows, also in settings that may change on resume."""
    path, record = folder / name, stored(folder, name)
    intact = path.read_bytes()
    told = 0
    for damage in flips(intact, 300):
        path.write_bytes(damage)
        read: list = []
        error = error_of(lambda read=read: read.extend(workdirs.read_run(folder)))
        if read:
            assert read[FILES.index(name)] == record  # white space
            continue
        told += 1
        assert isinstance(error, ConfigError)
        assert str(path) in str(error)
        assert "\n" not in str(error)
    assert told > 200


@pytest.mark.parametrize("content", ["[" * 50_000, '{"a": ' * 50_000, "9" * 50_000, ""])
def test_a_record_of_another_kind_is_not_read(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="config.json: "):
        workdirs.read_run(folder)


def committed_at(folder, step):
    """What the checkpoint of this step records of metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    kept = b"".join(line for line in lines if json.loads(line)["step"] <= step)
    return {"size": len(kept), "sha256": hashlib.sha256(kept).hexdigest()}


def test_the_metrics_are_those_of_the_checkpoint(folder):
    path = folder / "metrics.jsonl"
    whole = path.read_bytes()
    committed = committed_at(folder, 10)
    lines = whole.splitlines(keepends=True)
    for changed in (b"".join(lines[:1]), whole.replace(b"0.3", b"0.4"), whole[:-90]):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match="bytes were changed or lost since"):
            MetricWriter(folder, step=10, committed=committed)
        assert path.read_bytes() == changed
    path.write_bytes(whole[: committed["size"]] + b"{cut")  # later lines do not count
    writer = MetricWriter(folder, step=10, committed=committed)
    writer.write({"step": 11, "train/loss": 1.0})
    assert writer.sync() == committed_at(folder, 11)
    writer.close()


def test_removed_metrics_are_begun_anew(folder, caplog):
    committed = committed_at(folder, 10)
    (folder / "metrics.jsonl").unlink()
    writer = MetricWriter(folder, step=10, committed=committed)
    writer.close()
    assert "no lines up to step 10" in caplog.text


def test_other_versions_since_the_last_start_are_named(folder, caplog):
    workdirs.record_run(folder, 10)
    assert caplog.text == ""
    lines = (folder / "runs.jsonl").read_text().splitlines()
    record = json.loads(lines[-1])
    record["versions"]["jax"] = "0.4.2"
    (folder / "runs.jsonl").write_text(json.dumps(record) + "\n")
    workdirs.record_run(folder, 20)
    assert f"jax 0.4.2 -> {versions()['jax']} since the last start" in caplog.text


def test_the_digest_of_the_sources_follows_every_file(tmp_path):
    seen = {sources_digest(tmp_path)}
    for name in ("trm_jax/a.py", "trm_jax/b/c.py", "data_pipeline/a.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for content in ("", "x = 1\n", "x = 2\n"):
            path.write_text(content)
            seen.add(sources_digest(tmp_path))
    (tmp_path / "trm_jax" / "notes.txt").write_text("not a source")
    assert sources_digest(tmp_path) in seen
    assert len(seen) == 10


def test_a_workdir_of_an_older_version_is_refused_in_one_line(folder):
    old = {"model": {"d_model": 64}, "train": {"on_non_finite": "halt"}}
    (folder / "config.json").write_text(json.dumps(old))
    for act in (
        lambda: workdirs.claim(folder, CONFIG, DATASET),
        lambda: workdirs.read_run(folder),
    ):
        with pytest.raises(ConfigError) as info:
            act()
        told = str(info.value)
        assert told.startswith(f"{folder}/config.json: has no checksum: written by")
        assert "\n" not in told


def git(folder, *args):
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    line = ["git", "-C", str(folder), *me, *args]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_found_wherever_git_keeps_it(tmp_path):
    folder, tree = tmp_path / "checkout", tmp_path / "tree"
    assert git_commit(tmp_path) is None
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    assert git_commit(folder) is None
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    commit = git(folder, "rev-parse", "HEAD")
    git(folder, "worktree", "add", "-q", "-b", "feature/x", str(tree))
    for where in (folder, tree):
        assert git_commit(where) == commit
    git(folder, "pack-refs", "--all")
    for where in (folder, tree):
        assert git_commit(where) == commit
    git(tree, "checkout", "-q", "--detach")
    assert git_commit(tree) == commit


def flips(data, count):
    """Copies of `data`, each with one bit flipped, at seeded random places."""
    rng = random.Random(0)
    for place in rng.sample(range(len(data)), min(count, len(data))):
        copied = bytearray(data)
        copied[place] ^= 1 << rng.randrange(8)
        yield bytes(copied)


def damaged(data, fault):
    match fault:
        case "truncate":
            return [data[:size] for size in (0, 1, len(data) // 2, len(data) - 3)]
        case "zero":
            return [bytes(len(data))]
        case "flip":
            return flips(data, 40)
        case "delete":
            return [None]


@pytest.mark.parametrize("fault", ["truncate", "delete", "zero", "flip"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_or_does_no_harm(folder, name, fault, caplog):
    """Damage is harmless in settings that may change (the given config replaces them),
    in white space, in runs.jsonl, and in the number of a metric, where nothing can
    detect it.
    """
    intact = {file: (folder / file).read_bytes() for file in FILES}
    told = harmless = 0
    for damage in damaged(intact[name], fault):
        for file, data in intact.items():
            (folder / file).write_bytes(data)
        path = folder / name
        path.unlink() if damage is None else path.write_bytes(damage)
        caplog.clear()
        steps, error = attempt(folder)
        if error:
            told += 1
            assert str(path) in error
            assert path.exists() == (damage is not None)
            assert damage is None or path.read_bytes() == damage
        else:
            harmless += 1
            assert stored(folder) == as_stored(CONFIG)
            assert stored(folder, "dataset.json") == DATASET
            if name == "runs.jsonl":
                assert path.read_bytes().startswith(damage or b"")
                assert json.loads(path.read_text("latin1").splitlines()[-1])
            if name == "metrics.jsonl" and not steps:
                assert "no lines up to step 20" in caplog.text
            elif name == "metrics.jsonl":
                assert steps[0] == 5 or fault == "flip"
                assert steps == sorted(set(steps))
    if name == "runs.jsonl":
        assert told == 0
    elif name in FILES[:2] and fault != "flip":
        assert harmless == 0
    elif fault == "flip":
        assert told > harmless * (0.2 if name == "metrics.jsonl" else 1)


@pytest.mark.parametrize("evidence", ["checkpoints/20", "checkpoints/damaged-5", ""])
@pytest.mark.parametrize("name", FILES[:2])
def test_a_lost_record_is_not_made_up(folder, name, evidence):
    (folder / "checkpoints" / "20").rmdir()
    if evidence:
        (folder / evidence).mkdir()
        (folder / "metrics.jsonl").unlink()
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: not found, but .* is there"):
        workdirs.claim(folder, CONFIG, DATASET)
    assert not (folder / name).exists()


def test_a_claim_that_was_cut_short_is_taken_up(tmp_path):
    workdirs.claim(tmp_path, CONFIG, DATASET)
    (tmp_path / "dataset.json").unlink()
    workdirs.claim(tmp_path, CONFIG, DATASET)
    assert stored(tmp_path, "dataset.json") == DATASET


def test_each_run_is_recorded_with_its_flags_and_processes(folder, monkeypatch):
    (folder / "runs.jsonl").write_text('{"cut')
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
    workdirs.record_run(folder, 7)
    cut, line = (folder / "runs.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert cut == '{"cut'
    assert record["from_step"] == 7
    assert record["xla_flags"] == "--xla_some_flag=1"
    assert record["processes"] == 1


def test_a_process_that_is_not_the_first_writes_no_metrics(folder, monkeypatch):
    def written():
        paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        return {path: path.read_bytes() for path in paths}

    before = written()
    monkeypatch.setattr(processes, "is_first", lambda: False)
    writer = MetricWriter(folder, step=15)
    assert writer.last_step == 15
    writer.write({"step": 16})
    assert writer.last_step == 16
    writer.sync()
    writer.close()
    assert written() == before


def test_all_processes_have_read_before_the_first_one_writes(folder, monkeypatch):
    meetings = []

    def meet(text, what):
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
        meetings.append((text, what))

    monkeypatch.setattr(processes, "check_same", meet)
    MetricWriter(folder, step=10).close()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    ((text, what),) = meetings
    assert text == "10"
    assert "metrics.jsonl" in what


def test_steps_out_of_order_are_refused(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join([*lines[:3], lines[1]]))
    with pytest.raises(CheckpointError, match="line 4: step 10 after 15"):
        MetricWriter(folder, step=20)
