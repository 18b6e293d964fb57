"""Real processes, killed where it hurts: nothing is lost, nothing ends twice, nothing is paid twice."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from miner_ground import Webhook, found_home, noise_png, row, running, states, wait_for, write_env
from openai_peer import OpenAIPeer
from provider_peer import Reply

from gas.errors import ConfigurationError
from gas.generation.speech import find_voice
from gas.media.encode import encode_mp4
from gas.verification.inspection import State, inspect_credentials

ENDED = {"delivered", "failed", "expired"}


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    import numpy as np

    frames = [np.full((48, 64, 3), shade, np.uint8) for shade in (0, 80, 160, 240)]
    return {"image": noise_png(64), "video": encode_mp4(frames, 8), "audio": b""}


def _has_a_voice() -> bool:
    try:
        find_voice()
    except ConfigurationError:
        return False
    return True


def test_after_a_kill_in_every_phase_each_task_ends_once_and_the_provider_was_asked_once(
    tmp_path: Path, media: dict[str, bytes]
) -> None:
    found_home(tmp_path / ".gas")
    state = tmp_path / "state"
    local = _has_a_voice()
    with OpenAIPeer(media) as peer, Webhook() as hook:
        peer.waiting_polls = 10**6
        env = write_env(
            tmp_path / ".env.gen_miner",
            VIDEO_SERVICE="openai",
            AUDIO_SERVICE="local" if local else "none",
            OPENAI_API_KEY=peer.key,
            OPENAI_BASE_URL=peer.url,
            OPENAI_VIDEO_MODEL="sora-2",
            MINER_MAX_CONCURRENT_TASKS=2 + local,
        )
        env.chmod(0o644)
        with running(env) as miner:
            hook.status = 503
            delivering = hook.take(miner.url, "image", "a cat on a wall")
            wait_for(lambda: hook.tries, "the first try to deliver")
            outside = hook.take(miner.url, "video", "a dog in the rain")
            wait_for(lambda: states(state)[outside] == "running", "the job")
            peer.fail("submit", Reply(hold=True))
            asking = hook.take(miner.url, "image", "a bird in the sky")
            wait_for(lambda: len(peer.submits) == 3, "the paid call")
            here = []
            if local:
                here = [hook.take(miner.url, "audio", "Mind the gap, please.")]
                wait_for(lambda: states(state)[here[0]] == "generating", "the local pipeline's work")
            queued = hook.take(miner.url, "image", "a fish in a bowl")
            miner.kill()
            assert states(state) == {
                delivering: "delivering", outside: "running", asking: "asking", queued: "queued",
                **dict.fromkeys(here, "generating"),
            }  # fmt: skip

            peer.jobs = {job: (modality, 0) for job, (modality, _left) in peer.jobs.items()}
            hook.status = 200
            miner.start()
            # A voice takes seconds on a quiet machine and a minute on a busy one.
            wait_for(lambda: set(states(state).values()) <= ENDED, "the end of every task", seconds=200)
            assert miner.stop() == 0

        assert states(state) == {
            delivering: "delivered", outside: "delivered", asking: "failed", queued: "delivered",
            **dict.fromkeys(here, "delivered"),
        }  # fmt: skip
        assert Counter(len(taken) for taken in hook.deliveries.values()) == {1: 4 + local}
        anchors = (tmp_path / "authority" / "root.pem").read_bytes()
        for task in (delivering, outside, queued, *here):
            assert inspect_credentials(hook.deliveries[task][0][1], anchors).state is State.TRUSTED
        assert [hook.deliveries[task][0][0]["content-type"] for task in here] == ["audio/wav"] * len(here)
        failure, told = hook.deliveries[asking][0]
        assert failure["task-status"] == "failed"
        assert json.loads(told)["code"] == "provider_uncertain"
        assert hook.deliveries[outside][0][0]["content-type"] == "video/mp4"
        prompts = Counter(
            asked.json()["prompt"] if asked.path == "/images/generations" else asked.form()["prompt"]
            for asked in peer.submits
        )
        assert prompts == {"a cat on a wall": 1, "a dog in the rain": 1, "a bird in the sky": 1, "a fish in a bowl": 1}
        lines = [json.loads(line) for line in miner.log.read_text().splitlines() if asking in line]
        advice = [line["what_to_do"] for line in lines if line.get("code") == "provider_uncertain"]
        assert any("bill" in text for text in advice)
        assert f"chmod 600 {env}" in miner.log.read_text()
        assert peer.key not in miner.log.read_text()
        assert list((state / "outgoing").glob("??/*")) == []


def test_a_burst_fills_the_queue_and_no_more_and_loses_nothing_that_was_taken(
    tmp_path: Path, media: dict[str, bytes]
) -> None:
    found_home(tmp_path / ".gas")
    with OpenAIPeer(media) as peer, Webhook() as hook:
        # Busy until the burst is over, so that the queue stands still.
        peer.fail("submit", Reply.of({"error": {"message": "Rate limit"}}, 429, Retry_After="1"))
        peer.faults[0][1].forever = True
        env = write_env(
            tmp_path / ".env.gen_miner", OPENAI_API_KEY=peer.key, OPENAI_BASE_URL=peer.url, MINER_QUEUE_SIZE=60
        )
        with running(env) as miner:
            asyncio.run(_burst(hook, miner.url, 40))
            before = miner.rss_mb()
            answers = Counter(asyncio.run(_burst(hook, miner.url, 160)))
            grown = miner.rss_mb() - before
            assert answers == {202: 20, 503: 140}
            assert httpx.get(f"{miner.url}/health").status_code == 503
            assert grown < 32
            peer.faults.clear()
            wait_for(lambda: set(states(tmp_path / "state").values()) == {"delivered"}, "every delivery")
            assert httpx.get(f"{miner.url}/health").status_code == 200
            assert miner.stop() == 0
        assert Counter(len(taken) for taken in hook.deliveries.values()) == {1: 60}
        made = [asked.json()["prompt"] for asked in peer.submits]
        assert len(set(made)) == 60
        task = next(iter(hook.deliveries))
        assert row(tmp_path / "state", task)["verdict"] == "verified"


async def _burst(hook: Webhook, url: str, count: int) -> list[int]:
    places = asyncio.Semaphore(32)
    async with httpx.AsyncClient(timeout=60) as http:

        async def ask(number: int) -> int:
            body = json.dumps({"prompt": f"picture {count} {number}"}).encode()
            async with places:
                answer = await http.post(f"{url}/gen_image", content=body, headers=hook.headers(body))
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                assert answer.json()["error"]["code"] == "queue_full"
            return answer.status_code

        return list(await asyncio.gather(*(ask(number) for number in range(count))))
