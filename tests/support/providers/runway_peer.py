"""Runway as its API reference (2024-11-06) describes it: tasks, and addresses of what they have made."""

from __future__ import annotations

from provider_peer import Asked, Peer, Reply

_PATHS = {
    "/v1/text_to_image": "image",
    "/v1/text_to_video": "video",
    "/v1/image_to_video": "video",
    "/v1/text_to_speech": "audio",
}


class RunwayPeer(Peer):
    """Base URL is the host; errors are ``{"error": "..."}``. Media lie at addresses that need no key."""

    key = "key_" + "0123456789abcdef" * 8

    def kind(self, asked: Asked) -> str:
        if asked.method == "POST" and asked.path in _PATHS:
            return "submit"
        if asked.path.startswith("/v1/tasks/"):
            return "poll"
        if asked.path.startswith("/files/"):
            return "download"
        raise KeyError(asked.path)

    def needs_key(self, asked: Asked) -> bool:
        return not asked.path.startswith("/files/")

    def answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/files/"):
            return self.medium(asked.path.split("/")[2])
        if asked.headers.get("x-runway-version") != "2024-11-06":
            return Reply.of({"error": "X-Runway-Version is missing or unknown"}, 400)
        if asked.method == "POST":
            wanted = asked.json()
            if not 1 <= len(wanted["promptText"].encode("utf-16-le")) // 2 <= 1000:
                return self.refusal("invalid")
            modality = _PATHS[asked.path]
            if modality == "video" and (not 2 <= wanted["duration"] <= 10 or ":" not in wanted["ratio"]):
                return self.refusal("invalid")
            if modality == "audio" and wanted["voice"]["type"] != "runway-preset":
                return self.refusal("invalid")
            return Reply.of({"id": self.begin(modality), "estimatedCost": {"credits": 5}})
        job = asked.path.split("/")[3]
        if job not in self.jobs:
            return Reply.of({"error": "An error occurred; that task could not be found."}, 404)
        modality, done = self.advance(job)
        found: dict[str, object] = {"id": job, "createdAt": "2026-11-20T12:00:00.000Z"}
        if done:
            url = f"{self.url}/files/{modality}/made?_jwt=signed"
            return Reply.of({**found, "status": "SUCCEEDED", "output": [url], "cost": {"credits": 5}})
        return Reply.of({**found, "status": "THROTTLED" if len(self.seen) % 2 else "RUNNING", "progress": 0.5})

    def refusal(self, what: str, asked: Asked | None = None) -> Reply:
        status, message = {
            "key": (401, "The API key is not valid."),
            "credit": (400, "You do not have enough credits to run this task."),
            "moderation": (400, "Input rejected by content moderation."),
            "busy": (429, "You have reached your daily task limit."),
            "broken": (503, "Shedding load"),
            "invalid": (400, "Validation of body failed"),
            "echo": (400, f"You sent Authorization: Bearer {self.key}."),
        }[what]
        return Reply.of({"error": message, "docUrl": "https://docs.dev.runwayml.com"}, status)

    def ended(self, status: str, code: str = "") -> Reply:
        """A task that ended without a medium."""
        found = {"id": "job-1", "createdAt": "2026-11-20T12:00:00.000Z", "status": status, "cost": {"credits": 0}}
        return Reply.of({**found, "failure": "It failed.", "failureCode": code} if code else found)

    def job_failed(self) -> Reply:
        """A job that moderation has stopped."""
        return self.ended("FAILED", "SAFETY.INPUT.TEXT")
