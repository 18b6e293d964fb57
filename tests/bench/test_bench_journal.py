"""A run that is killed goes on where it was, and ends as if nothing had happened."""

import resource
import signal
import stat

import numpy as np
import pytest

from gas.bench.answer_parts import PART_ROWS
from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass
from gas.bench.engine import evaluate
from gas.bench.journal import Journal
from gas.bench.records import to_parquet
from gas.errors import ConfigurationError, InfrastructureError, StorageError
from gas.types import SampleStatus

NONCE = "the secret of one run"


class Killed(InfrastructureError):
    """Stands for the end of the process, at the point where a batch is complete."""


def interrupted(bench, folder, kill_after, *, sandbox=None, **changes):
    """One life of a run; answers its result, or None when it was killed."""

    def watch(progress):
        if progress.done - progress.resumed >= kill_after:
            raise Killed("killed")

    config = bench.config(nonce=NONCE, robustness_per_dataset=3, batch_size=5, **changes)
    with Journal(folder, {"round": "r", "package": "p"}, NONCE) as journal:
        try:
            return evaluate(
                bench.spec, bench.round(90), bench.Media(), sandbox or bench.Sandbox(), config, watch, journal=journal
            )
        except Killed:
            return None


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(bench, tmp_path):
    whole = interrupted(bench, tmp_path / "whole", 10**6)
    lives, result = 0, None
    while result is None:
        lives += 1
        result = interrupted(bench, tmp_path / "killed", 1 + lives % 9)
    assert lives > 5
    assert to_parquet(result.records) == to_parquet(whole.records)
    assert (result.reasked, result.inconsistent) == (whole.reasked, whole.inconsistent)


def test_nothing_that_was_answered_is_asked_again(bench, tmp_path):
    first, second = bench.Sandbox(), bench.Sandbox()
    assert interrupted(bench, tmp_path, 30, sandbox=first, processes=1) is None
    interrupted(bench, tmp_path, 10**6, sandbox=second, processes=1)
    asked = sum(map(len, first.batches)) + sum(map(len, second.batches))
    undisturbed = bench.Sandbox()
    interrupted(bench, tmp_path / "other", 10**6, sandbox=undisturbed, processes=1)
    assert asked == sum(map(len, undisturbed.batches))


def test_a_finished_journal_gives_the_result_without_a_model(bench, tmp_path):
    whole = interrupted(bench, tmp_path, 10**6)
    idle = bench.Sandbox()
    again = interrupted(bench, tmp_path, 10**6, sandbox=idle)
    assert idle.sessions == []
    assert to_parquet(again.records) == to_parquet(whole.records)


def test_restarts_count_over_all_lives(bench, tmp_path):
    deadly = bench.dies_on(*range(90))
    result, lives = None, 0
    while result is None:
        lives += 1
        result = interrupted(bench, tmp_path, 5, sandbox=bench.Sandbox(deadly), max_restarts=20)
    assert lives > 1
    assert result.gave_up
    assert result.restarts == 20
    assert interrupted(bench, tmp_path, 5, sandbox=bench.Sandbox(deadly), max_restarts=20).gave_up


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_process_that_was_given_up_stays_so_and_the_others_go_on(bench, tmp_path, deaths):
    def life(folder, kill_after):
        deadly = bench.Sandbox(bench.dies_on(*range(30, 30 + 40 * (deaths - 1) + 1, 40)))
        return interrupted(bench, folder, kill_after, sandbox=deadly, max_restarts=0, processes=2)

    whole = life(tmp_path / "whole", 10**6)
    assert whole.gave_up
    result = None
    while result is None:
        result = life(tmp_path / "killed", 1)
    assert result.gave_up
    if deaths == 1:
        # With two it depends on the order in which they die how much was answered before.
        assert to_parquet(result.records) == to_parquet(whole.records)
        assert result.error_counts["gave_up"] < 10
    again = life(tmp_path / "killed", 1)
    assert to_parquet(again.records) == to_parquet(result.records)


@pytest.mark.parametrize(("before", "after"), [(4, 1), (2, 6)])
def test_how_many_processes_there_are_now_does_not_change_how_many_were_given_up(bench, tmp_path, before, after):
    def life(kill_after, processes):
        deadly = bench.Sandbox(bench.dies_on(30))
        return interrupted(bench, tmp_path, kill_after, sandbox=deadly, max_restarts=0, processes=processes)

    while True:
        assert life(1, before) is None
        with Journal(tmp_path, {"round": "r", "package": "p"}, NONCE) as journal:
            if journal.ended:
                break
    assert (journal.ended, journal.processes) == (1, before)
    result = life(10**6, after)
    assert result.gave_up
    # Only what was in the hands of the one process is lost.
    assert result.error_counts["gave_up"] < 10


def test_when_all_processes_were_given_up_more_of_them_later_ask_nothing(bench, tmp_path):
    def life(sandbox, processes):
        return interrupted(bench, tmp_path, 1, sandbox=sandbox, max_restarts=0, processes=processes)

    is_over = False
    while not is_over:
        assert life(bench.Sandbox(bench.dies_on(*range(90))), 2) is None
        with Journal(tmp_path, {"round": "r", "package": "p"}, NONCE) as journal:
            is_over = journal.is_over
    idle = bench.Sandbox()
    result = life(idle, 6)
    assert idle.sessions == []
    assert result.gave_up
    assert {record.status for record in result.records} == {SampleStatus.MODEL_ERROR}


@pytest.mark.parametrize("later", [1, PART_ROWS])
def test_later_answers_do_not_take_back_that_a_process_was_given_up(tmp_path, later):
    with Journal(tmp_path, {}, NONCE) as journal:
        journal.append([], restarts=3, gave_up=True, ended=1)
        journal.append([(Ask(k, Pass.BASE), Outcome(error="crashed")) for k in range(later)], restarts=3)
    with Journal(tmp_path, {}, NONCE) as again:
        assert (again.restarts, again.ended, again.gave_up) == (3, 1, True)


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_is_left_out(tmp_path, cut):
    answers = [(Ask(k, Pass.BASE), Outcome(np.array([0.1, k], np.float32))) for k in range(6)]
    with Journal(tmp_path, {}, NONCE) as journal:
        journal.append(answers[:3], restarts=0)
        journal.append(answers[3:], restarts=2)
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    with Journal(tmp_path, {}, "another nonce") as again:
        assert sorted(again.outcomes) == [ask for ask, _ in answers[:3]]
        assert (again.nonce, again.restarts) == (NONCE, 0)
        assert again.outcomes[Ask(2, Pass.BASE)].logits.tolist() == answers[2][1].logits.tolist()
        again.append(answers[3:], restarts=1)
    with Journal(tmp_path, {}, NONCE) as once_more:
        assert len(once_more.outcomes) == 6


def test_rubbish_instead_of_a_journal_is_begun_anew(tmp_path):
    with Journal(tmp_path, {}, NONCE) as journal:
        path = journal.path
    path.write_bytes(b"\x00\xff" * 50 + b"\n{}\n")
    with Journal(tmp_path, {}, "a fresh nonce for this") as fresh:
        assert (fresh.outcomes, fresh.nonce) == ({}, "a fresh nonce for this")


def test_other_packages_and_rounds_have_other_journals(tmp_path):
    with Journal(tmp_path, {"package": "a"}, NONCE) as one, Journal(tmp_path, {"package": "b"}, NONCE) as two:
        assert one.path != two.path


def test_the_secret_is_for_the_owners_eyes(tmp_path):
    with Journal(tmp_path, {}, NONCE) as journal:
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_two_processes_cannot_be_at_one_run(tmp_path):
    with Journal(tmp_path, {}, NONCE), pytest.raises(StorageError) as error:
        Journal(tmp_path, {}, NONCE)
    assert error.value.error_code == "journal_busy"


def test_another_nonce_than_the_journals_is_refused(bench, tmp_path):
    with Journal(tmp_path, {}, NONCE) as journal, pytest.raises(ConfigurationError):
        evaluate(bench.spec, bench.round(9), bench.Media(), bench.Sandbox(), bench.config(), journal=journal)


def test_a_full_disk_ends_the_run_and_keeps_what_was_done(bench, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with pytest.raises(StorageError) as error:
            interrupted(bench, tmp_path, 10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.error_code == "journal_unwritable"
    whole = interrupted(bench, tmp_path / "whole", 10**6)
    with Journal(tmp_path, {"round": "r", "package": "p"}, NONCE) as journal:
        assert journal.outcomes
    assert to_parquet(interrupted(bench, tmp_path, 10**6).records) == to_parquet(whole.records)
