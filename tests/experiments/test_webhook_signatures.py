"""Signatures, by the specification's own example and as the published library verifies them."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from experiments.tables import Webhook
from experiments.webhooks.deliver import keys_of
from experiments.webhooks.sign import new_secret, signed_headers

BODY = b'{"test": 2432232314}'


def test_the_published_example_has_its_signature() -> None:
    """The example that the specification's libraries are tested with."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        BODY,
        sent_at=datetime.fromtimestamp(1614265330, UTC),
        keys=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_published_library_takes_a_message_and_refuses_a_changed_one() -> None:
    now = datetime.now(UTC)
    secret = new_secret()
    headers = signed_headers("msg_1", BODY, sent_at=now, keys=[secret])
    assert Verifier(secret).verify(BODY, headers) == {"test": 2432232314}
    for wrong in (
        (BODY.replace(b"3", b"4"), headers),
        (BODY, headers | {"webhook-id": "msg_2"}),
        (BODY, headers | {"webhook-timestamp": str(int(now.timestamp()) + 1)}),
        (BODY, signed_headers("msg_1", BODY, sent_at=now - timedelta(minutes=6), keys=[secret])),
        (BODY, signed_headers("msg_1", BODY, sent_at=now, keys=[new_secret()])),
    ):
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(*wrong)


def test_while_a_secret_changes_both_the_old_and_the_new_one_verify() -> None:
    now = datetime.now(UTC)
    old, new = new_secret(), new_secret()
    given = {"key": "hook", "version": 1, "url": "https://hooks.example", "created_at": now, "created_by": "key/ann"}
    webhook = Webhook.model_validate(given | {"secret": new, "previous_secret": old, "previous_until": now})
    headers = signed_headers("msg_1", BODY, sent_at=now, keys=keys_of(webhook, now=now - timedelta(seconds=1)))
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert Verifier(old).verify(BODY, headers) == Verifier(new).verify(BODY, headers)
    assert keys_of(webhook, now=now) == (new,)


def test_a_secret_is_new_each_time_and_has_the_length_that_is_asked_for() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {secret[:6] for secret in secrets} == {"whsec_"}
    assert {len(Verifier(secret)._whsecret) for secret in secrets} == {32}  # noqa: SLF001  # it shows it nowhere else
