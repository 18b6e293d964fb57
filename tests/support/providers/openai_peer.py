"""OpenAI as its API reference describes it: images, image edits, speech, and the (retired) videos."""

from __future__ import annotations

import base64
import json

from provider_peer import Asked, Peer, Reply


class OpenAIPeer(Peer):
    """Base URL with ``/v1``; errors are ``{"error": {"message", "type", "param", "code"}}``."""

    prefix = "/v1"

    def kind(self, asked: Asked) -> str:
        if asked.method == "POST":
            return {
                "/images/generations": "submit",
                "/images/edits": "submit",
                "/audio/speech": "submit",
                "/videos": "submit",
            }[asked.path]
        return "download" if asked.path.endswith("/content") else "poll"

    def answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/images/"):
            wanted = asked.json() if asked.path.endswith("generations") else asked.form()
            if wanted["size"] not in ("auto", "1024x1024", "1536x1024", "1024x1536") and any(
                int(side) % 16 for side in wanted["size"].split("x")
            ):
                return self.refusal("invalid")
            return Reply.of(
                {
                    "created": 1764000000,
                    "data": [{"b64_json": base64.b64encode(self.media["image"]).decode()}],
                    "output_format": wanted["output_format"],
                    "size": wanted["size"],
                    "usage": {"input_tokens": 9, "output_tokens": 1056, "total_tokens": 1065},
                }
            )
        if asked.path == "/audio/speech":
            return self.medium("audio")
        if asked.path == "/videos":
            form = asked.form()
            if form["seconds"] not in ("4", "8", "12") or form["size"] not in ("1280x720", "720x1280"):
                return self.refusal("invalid")
            return Reply.of(self._video(self.begin("video"), "queued"))
        job = asked.path.split("/")[2]
        if job not in self.jobs:
            return Reply.of({"error": {"message": "No such video", "type": "invalid_request_error", "code": None}}, 404)
        if asked.path.endswith("/content"):
            return self.medium("video")
        _, done = self.advance(job)
        return Reply.of(self._video(job, "completed" if done else "in_progress"))

    def refusal(self, what: str, asked: Asked | None = None) -> Reply:
        status, kind, code, message = {
            "key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-pe***stuv."),
            "credit": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
            "moderation": (
                400,
                "image_generation_user_error",
                "moderation_blocked",
                "Your request was rejected by the safety system. safety_violations=[violence].",
            ),
            "busy": (429, "requests", "rate_limit_exceeded", "Rate limit reached. Please try again in 20s."),
            "broken": (500, "server_error", None, "The server had an error while processing your request."),
            "invalid": (400, "invalid_request_error", "invalid_value", "Invalid value: 'size'."),
            "echo": (400, "invalid_request_error", "strange", f"You sent Authorization: Bearer {self.key}."),
        }[what]
        return Reply.of({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)

    def job_failed(self) -> Reply:
        """A job that moderation has stopped."""
        video = self._video("job-1", "failed")
        video["error"] = {"code": "moderation_blocked", "message": "Blocked by our moderation system."}
        return Reply.of(video)

    @staticmethod
    def _video(job: str, status: str) -> dict[str, object]:
        return {
            "id": job,
            "object": "video",
            "model": "sora-2",
            "status": status,
            "progress": 100 if status == "completed" else 10,
            "created_at": 1764000000,
            "size": "1280x720",
            "seconds": "4",
            "error": None,
        }


def picture_answer(data: bytes) -> bytes:
    """The answer to a picture's request, with these bytes in it."""
    return json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]}).encode()
