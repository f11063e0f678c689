"""AWS KMS as the server uses it: Encrypt, Decrypt and DescribeKey over JSON, with the states of keys.

Source: AWS KMS API Reference; AWS KMS Developer Guide, "Key states of AWS KMS keys": a disabled key answers
DisabledException, and one that is pending deletion KMSInvalidStateException. A key of any ARN exists until it
is removed.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

TARGET = b"x-amz-target: trentservice."
_STATES = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}
SILENCE = "silence"


class Kms:
    """Keys with states; what was encrypted stays here, and its ciphertext is only a name for it."""

    def __init__(self) -> None:
        """Begin with enabled keys of every ARN."""
        self.states: dict[str, str] = {}
        self.fault = ""
        """The error code of every answer, ``silence`` for none at all; empty: KMS works."""
        self.faulty_action = ""
        """The only action that has the fault; empty: all."""
        self.calls: Counter[str] = Counter()
        self._encrypted: dict[bytes, tuple[str, dict[str, str], bytes]] = {}

    def answer(self, head: bytes, body: bytes) -> tuple[int, bytes] | None:
        """Answer one request; None for silence."""
        start = head.lower().index(TARGET) + len(TARGET)
        action = head[start:].partition(b"\r")[0].decode()
        self.calls[action] += 1
        fault = self.fault if self.faulty_action in ("", action) else ""
        if fault == SILENCE:
            return None
        code, answer = (fault, {}) if fault else self._handle(action, json.loads(body))
        if code:
            return 400, json.dumps({"__type": code, "message": f"{action}: {code}"}).encode()
        return 200, json.dumps(answer).encode()

    def _handle(self, action: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        arn, context = given["KeyId"], given.get("EncryptionContext", {})
        state = self.states.get(arn, "Enabled")
        if state == "Removed":
            return "NotFoundException", {}
        if action == "DescribeKey":
            shown = {"Arn": arn, "KeyId": arn.rpartition("/")[2], "KeyState": state}
            return "", {"KeyMetadata": shown | {"KeySpec": "SYMMETRIC_DEFAULT"}}
        if state in _STATES:
            return _STATES[state], {}
        if action == "Encrypt":
            name = b"kms ciphertext %d" % len(self._encrypted)
            self._encrypted[name] = arn, context, base64.b64decode(given["Plaintext"])
            return "", {"CiphertextBlob": base64.b64encode(name).decode(), "KeyId": arn}
        return self._decrypt(arn, context, base64.b64decode(given["CiphertextBlob"]))

    def _decrypt(self, arn: str, context: dict[str, str], blob: bytes) -> tuple[str, dict[str, Any]]:
        of_key, sealed_for, plain = self._encrypted.get(blob, ("", {}, b""))
        if not of_key or sealed_for != context:
            return "InvalidCiphertextException", {}
        if of_key != arn:
            return "IncorrectKeyException", {}
        return "", {"Plaintext": base64.b64encode(plain).decode(), "KeyId": arn}
