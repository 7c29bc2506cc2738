"""What a webhook is told, as Standard Webhooks say: a thin body, an id, a time and a signature."""

from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from nextrapolate.schemas import EndedJob, WebhookMessage
from nextrapolate_store.records import JobRecord


@dataclass(frozen=True)
class SignedMessage:
    """One POST.

    Attributes:
        headers: webhook-id, which is the same at each attempt, webhook-timestamp, and webhook-signature where
            there is a secret to sign with.
        body: a `WebhookMessage`.
    """

    headers: dict[str, str]
    body: bytes


def message(job: JobRecord, secret: str | None, now: datetime) -> SignedMessage:
    """Say how a job has ended."""
    told = WebhookMessage.model_validate(
        {
            "type": f"job.{job.state}",
            "timestamp": job.finished_at or now,
            "data": EndedJob(
                id=job.id,
                task=job.request.task,
                state=job.state,
                labels=job.request.labels,
                error=job.error,
            ),
        }
    )
    message_id, body = f"msg_{job.id}", told.model_dump_json()
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    if secret is not None:
        headers["webhook-signature"] = Webhook(secret).sign(message_id, now.astimezone(UTC), body)
    return SignedMessage(headers, body.encode())
