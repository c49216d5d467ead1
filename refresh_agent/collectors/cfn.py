"""A resource's metadata from Heat's CloudFormation API, with signed requests.

os-collect-config: cfn.py, and the wire protocol is its own to the letter; only that every path is signed
afresh: it reuses a signer, and so signs the second path wrongly.
"""

import base64
import hashlib
import hmac
import io
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from xml.parsers import expat

from refresh_agent import files, metadata
from refresh_agent.collectors import Polled, http
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "cfn"

REQUIRED = ("access_key_id", "path", "secret_access_key", "stack_name")

_WITHIN = ("DescribeStackResourceResponse", "DescribeStackResourceResult", "StackResourceDetail")
_HINT_LIMIT = 4096
_PIECE = 2**18


class CfnError(Exception):
    """The answer or an option is not as it should be; the text is for the operator."""


class Path(NamedTuple):
    """``path`` as configured: RESOURCE.FIELD, and keys that lead to an object within."""

    text: str
    resource: str
    field: str
    keys: tuple[str, ...]


class Cfn(Polled):
    def __init__(self, options: Mapping[str, Any], limits: MetadataLimits) -> None:
        self._options = options
        self._limits = limits
        credentials = "access_key_id and secret_access_key"
        self._client = http.Client(NAME, credentials, options, limits)

    def collect(self) -> Snapshot:
        """One document ``cfn``: of several paths, their objects merged key by key."""
        if absent := http.not_configured(NAME, self._options, REQUIRED):
            return absent
        try:
            url = self._url()
            if not url:
                hint = self._options.get("heat_metadata_hint")
                instead = f", and there is no {hint} (heat_metadata_hint)" if hint else ""
                text = f"metadata_url is not set in [{NAME}]{instead}: not configured"
                return Snapshot(NAME, error=text, absent=True, unconfigured=True)
            document = self._document(url, [parse_path(text) for text in self._options["path"]])
        except http.HttpError as error:
            return http.failed(NAME, error)
        except CfnError as error:
            return Snapshot(NAME, error=str(error))
        return Snapshot(NAME, (document,), deployment_keys=tuple(self._options["deployment_key"]))

    def close(self) -> None:
        self._client.close()

    def _url(self) -> str:
        """Empty if it is neither configured nor written down by heat-cfntools."""
        url = str(self._options.get("metadata_url") or "")
        hint = self._options.get("heat_metadata_hint")
        if url or not hint:
            return url
        try:
            text = files.read_regular(hint, _HINT_LIMIT).decode("ascii").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            reason = files.reason(error) if isinstance(error, OSError) else "holds no URL"
            raise CfnError(f"{hint} ([{NAME}] heat_metadata_hint): {reason}") from None
        return f"{text}/v1/" if text else ""

    def _document(self, url: str, paths: list[Path]) -> Document:
        where = http.shown_url(url)
        if len(paths) == 1 and not paths[0].keys:
            return Document(NAME, self._fetch(url, paths[0]), origin=f"GET {where}: {paths[0].text}")
        merged: dict[str, Any] = {}
        for path in paths:
            try:
                content = metadata.parse(self._fetch(url, path), self._limits)
            except metadata.MetadataError as error:
                raise CfnError(f"GET {where}: {path.text}: {error}") from None
            merged.update(_within(content, path, where))
        return Document(NAME, metadata.dump(merged), origin=where)

    def _fetch(self, url: str, path: Path) -> bytes:
        """The text of the path's field: JSON."""
        params = {
            "Action": "DescribeStackResource",
            "StackName": self._options["stack_name"],
            "LogicalResourceId": path.resource,
            "AWSAccessKeyId": self._options["access_key_id"],
            "SignatureVersion": "2",
            "SignatureMethod": "HmacSHA256",
        }
        params["Signature"] = signature(self._options["secret_access_key"], url, params)
        reply = self._client.get(
            url,
            params=params,
            headers={"Content-Type": "application/json"},
            missing=f"there is no resource {path.resource!r} in a stack {self._options['stack_name']!r}",
        )
        try:
            return field_text(reply.buffer, path.field)
        except CfnError as error:
            raise CfnError(f"GET {http.shown_url(url)}: {path.text}: {error}") from None


def build(options: Mapping[str, Any], limits: MetadataLimits) -> Cfn:
    return Cfn(options, limits)


def parse_path(text: str) -> Path:
    """Raises CfnError if it is not RESOURCE.FIELD[.KEY...]."""
    resource, *rest = text.split(".")
    if not rest or not resource or not all(rest):
        raise CfnError(f"[{NAME}] path: {text!r} is not RESOURCE.FIELD, with .KEY behind it if wanted")
    return Path(text, resource, rest[0], tuple(rest[1:]))


def signature(secret: str, url: str, params: Mapping[str, str]) -> str:
    """EC2's, version 2, of a GET: over the host, the path and the sorted parameters."""
    parts = urlsplit(url)
    pairs = (f"{quote(key, safe='')}={quote(params[key], safe='-_~')}" for key in sorted(params))
    text = "\n".join(("GET", parts.netloc, parts.path, "&".join(pairs)))
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), hashlib.sha256)).decode()


def field_text(answer: io.BytesIO, field: str) -> bytes:
    """The text of a field of the described resource, as UTF-8. Overwrites ``answer``: see _FieldText.

    Raises CfnError. A DOCTYPE is refused, so that there are no entities but XML's own.
    """
    try:
        return _FieldText(answer, field).text()
    except expat.ExpatError as error:
        raise CfnError(f"the answer is not XML: {expat.errors.messages[error.code]}") from None
    except (LookupError, ValueError):
        raise CfnError("the answer is XML in an encoding that cannot be read") from None


class _FieldText:
    """Reads XML piece by piece, and writes the field's text over what has been read: it is never longer.

    So a large document is in memory once.
    """

    def __init__(self, answer: io.BytesIO, field: str) -> None:
        self._answer = answer
        self._field = field
        self._wanted = [*_WITHIN, field]
        self._open: list[str] = []
        self._read = 0
        self._written = 0
        self._found = False

    def text(self) -> bytes:
        # Not kept: it refers to this object, and a circle would keep the answer in memory for long.
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        while piece := self._next():
            parser.Parse(piece, False)
        parser.Parse(b"", True)
        if not self._found:
            raise CfnError(f"the answer describes no resource with a field {self._field!r}")
        self._answer.truncate(self._written)
        return self._answer.getvalue()

    def _next(self) -> bytes:
        self._answer.seek(self._read)
        piece = self._answer.read(_PIECE)
        self._read += len(piece)
        return piece

    def _doctype(self, *_details: Any) -> None:
        raise CfnError("the answer has a DOCTYPE, which could define entities; refused")

    def _start(self, name: str, _attributes: Any) -> None:
        self._open.append(name)
        self._found = self._found or self._open == self._wanted

    def _end(self, _name: str) -> None:
        self._open.pop()

    def _characters(self, text: str) -> None:
        if self._open != self._wanted:
            return
        data = text.encode()
        if self._written + len(data) > self._read:
            raise CfnError("the answer is XML in another encoding than UTF-8")
        self._answer.seek(self._written)
        self._written += self._answer.write(data)


def _within(content: Any, path: Path, where: str) -> dict[str, Any]:
    for key in path.keys:
        if not isinstance(content, dict) or key not in content:
            raise CfnError(f"GET {where}: {path.text}: there is no key {key!r}")
        content = content[key]
    if not isinstance(content, dict):
        raise CfnError(f"GET {where}: {path.text}: is not a JSON object")
    return content
