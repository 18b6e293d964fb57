"""OpenRouter as its documentation describes it: pictures in chat completions, jobs for clips, speech."""

from __future__ import annotations

import base64
from typing import Any

from provider_peer import Asked, Peer, Reply


class OpenRouterPeer(Peer):
    """Base URL with ``/api/v1``; errors are ``{"error": {"code": status, "message", "metadata"}}``."""

    key = "sk-or-v1-peer0123456789abcdefghijklmnop"
    prefix = "/api/v1"

    def kind(self, asked: Asked) -> str:
        if asked.method == "POST":
            return {"/chat/completions": "submit", "/videos": "submit", "/audio/speech": "submit"}[asked.path]
        return "download" if asked.path.endswith("/content") else "poll"

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/chat/completions":
            wanted = asked.json()
            if "image" not in wanted["modalities"]:
                return self.completion(message={"role": "assistant", "content": "A picture of a dog."})
            url = f"data:image/png;base64,{base64.b64encode(self.media['image']).decode()}"
            images = [{"type": "image_url", "image_url": {"url": url}}]
            return self.completion(message={"role": "assistant", "content": "Here it is.", "images": images})
        if asked.path == "/audio/speech":
            return self.medium("audio", X_Generation_Id="gen-1")
        if asked.path == "/videos":
            wanted = asked.json()
            if wanted["resolution"] not in ("480p", "720p", "1080p") or ":" not in wanted["aspect_ratio"]:
                return self.refusal("invalid")
            job = self.begin("video")
            return Reply.of({"id": job, "polling_url": f"/api/v1/videos/{job}", "status": "pending"}, 202)
        job = asked.path.split("/")[2]
        if job not in self.jobs:
            return Reply.of({"error": {"code": 404, "message": "Job not found"}}, 404)
        if asked.path.endswith("/content"):
            return self.medium("video")
        _, done = self.advance(job)
        found: dict[str, object] = {"id": job, "polling_url": f"/api/v1/videos/{job}"}
        if not done:
            return Reply.of({**found, "status": "in_progress"})
        return Reply.of({**found, "status": "completed", "unsigned_urls": [f"{self.url}/videos/{job}/content?index=0"]})

    def completion(self, finish: str = "stop", native: str = "STOP", **choice: Any) -> Reply:
        """A chat completion with one choice."""
        choices = [{"index": 0, "finish_reason": finish, "native_finish_reason": native, **choice}]
        return Reply.of({"id": "gen-1", "object": "chat.completion", "model": "m", "choices": choices})

    def refusal(self, what: str, asked: Asked | None = None) -> Reply:
        flagged = {"reasons": ["violence"], "flagged_input": "the prompt", "provider_name": "p", "model_slug": "m"}
        status, message, metadata = {
            "key": (401, "No auth credentials found", None),
            "credit": (402, "Insufficient credits. Add more at the credits page.", None),
            "moderation": (403, "The model requires moderation and your input was flagged.", flagged),
            "busy": (429, "Rate limit exceeded", {"error_type": "rate_limit_exceeded"}),
            "broken": (502, "Provider returned error", {"error_type": "provider_unavailable"}),
            "invalid": (400, "Invalid request parameters", {"error_type": "invalid_request"}),
            "echo": (400, f"You sent Authorization: Bearer {self.key}.", None),
        }[what]
        error: dict[str, object] = {"code": status, "message": message}
        if metadata:
            error["metadata"] = metadata
        return Reply.of({"error": error}, status)

    def inside(self, what: str) -> Reply:
        """The same error in the body of a 200 answer, as when it happens after the model has begun."""
        return Reply(200, self.refusal(what).body, {"Content-Type": "application/json"})

    def job_failed(self) -> Reply:
        """A job that moderation has stopped."""
        return Reply.of({"id": "job-1", "polling_url": "/", "status": "failed", "error": "Blocked by safety filters"})
