"""Stability AI as its API reference (v2beta) describes it: forms in, media or errors out."""

from __future__ import annotations

from provider_peer import Asked, Peer, Reply

_RATIOS = {"1:1", "16:9", "9:16", "3:2", "2:3", "5:4", "4:5", "21:9", "9:21"}


class StabilityPeer(Peer):
    """Base URL is the host; errors are ``{"id", "name", "errors": [...]}``."""

    deferred = False
    keeps_size = True

    def kind(self, asked: Asked) -> str:
        if asked.method == "POST" and asked.path.startswith(("/v2beta/stable-image/", "/v2beta/audio/stable-audio-2/")):
            return "submit"
        if asked.path.startswith("/v2beta/results/"):
            return "poll"
        raise KeyError(asked.path)

    def answer(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            job = asked.path.split("/")[3]
            if job not in self.jobs:
                return Reply.of({"id": "e1", "name": "not_found", "errors": ["id: not found"]}, 404)
            modality, done = self.advance(job)
            if not done:
                return Reply.of({"id": job, "status": "in-progress"}, 202)
            return self.medium(modality, Finish_Reason="SUCCESS", Seed="7")
        form = asked.form()
        modality = "audio" if asked.path.startswith("/v2beta/audio/") else "image"
        if asked.headers["accept"] != f"{modality}/*" or not form.get("prompt"):
            return self.refusal("invalid")
        if not 0 <= int(form["seed"]) <= 4294967294 or form.get("aspect_ratio", "1:1") not in _RATIOS:
            return self.refusal("invalid")
        if asked.path.endswith("/generate/sd3") and form.get("mode") == "image-to-image" and "aspect_ratio" in form:
            return self.refusal("invalid")
        if asked.path.endswith("/edit/inpaint") and not {"image", "mask"} <= form.keys():
            return self.refusal("invalid")
        if asked.path.endswith("/edit/inpaint") and not self.deferred and self.keeps_size:
            self.media["image"] = form["image"][2]
        if self.deferred:
            return Reply.of({"id": self.begin(modality)}, 202)
        return self.medium(modality, Finish_Reason="SUCCESS", Seed=form["seed"])

    def refusal(self, what: str, asked: Asked | None = None) -> Reply:
        status, name, message = {
            "key": (401, "unauthorized", "authorization: invalid key"),
            "credit": (402, "payment_required", "You lack sufficient credits to make this request."),
            "moderation": (403, "content_moderation", "Your request was flagged by our content moderation system."),
            "busy": (429, "rate_limit_exceeded", "You have exceeded the rate limit of 150 requests in 10 seconds."),
            "broken": (500, "internal_error", "An unexpected server error has occurred."),
            "invalid": (400, "bad_request", "some-field: is required"),
            "echo": (400, "bad_request", f"You sent Authorization: Bearer {self.key}."),
        }[what]
        return Reply.of({"id": "4212a4b66fbe1cedca4bf2133d35dca5", "name": name, "errors": [message]}, status)

    def filtered(self, modality: str = "image") -> Reply:
        """What the filter let through only blurred."""
        return self.medium(modality, Finish_Reason="CONTENT_FILTERED", Seed="7")
