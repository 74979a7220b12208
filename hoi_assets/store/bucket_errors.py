"""What a bucket's refusals mean and what helps, in words; without secrets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hoi_assets.errors import HoiError

# Of conditional writes: the condition does not hold, or another write is going on.
CHANGED = (409, 412)
BUSY = (408, 429)
LACKING = ("NoSuchKey", "404", "NotFound")
RIGHTS = "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject"
_CREDENTIALS = (
    "the server does not accept the credentials",
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and AWS_SESSION_TOKEN where "
    "the key is a temporary one",
)
_RIGHTS = (
    "the credentials have no right to",
    f"give them {RIGHTS} on the bucket; to read alone, the first two suffice",
)
_BUCKET = (
    "there is no such bucket",
    "make the bucket, or correct HOI_HOME; for a server that is not AWS set AWS_ENDPOINT_URL_S3",
)
CAUSES = {
    "NoSuchBucket": _BUCKET,
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "403": ("the server refuses", f"check the credentials, the clock, and {RIGHTS}"),
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "ExpiredToken": _CREDENTIALS,
    "RequestTimeTooSkewed": (
        "this machine's clock differs from the server's by more than S3 allows",
        "set the clock, e.g. with NTP (`timedatectl set-ntp true`)",
    ),
    "PermanentRedirect": ("the bucket is in another region", "set AWS_REGION to the bucket's"),
    "AuthorizationHeaderMalformed": (
        "the bucket is in another region",
        "set AWS_REGION to the bucket's",
    ),
}
_AWAY = "start it, or set AWS_ENDPOINT_URL_S3 to its address, then run again: nothing is lost"


class Conflict(HoiError):
    """A conditional write lost: the object is not what it was taken for."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(f"{url}/{key} was written by another process", "run again")


class Absent(HoiError):
    """There is no such object."""


class Unchanged(HoiError):
    """The object has the content that the caller has. `response` is the server's answer."""

    def __init__(self, what: str, response: Any) -> None:
        super().__init__(what, "use what is there")
        self.response = response


class Unreachable(HoiError):
    """The server did not answer, or not soundly, although it was asked several times."""


@contextmanager
def translated(url: str, what: str) -> Iterator[None]:
    """Turn the SDK's errors inside the block into a HoiError.

    Args:
        what: is being done, e.g. "read home.json".

    Raises:
        Unreachable: no answer.
        HoiError: a refusal; says why and what helps.
    """
    try:
        yield
    except HoiError:
        raise
    except Exception as error:
        found = _translate(url, what, error)
        if found is None:
            raise
        raise found from error


def of_code(url: str, what: str, code: str) -> HoiError:
    """The error for a refusal with S3's code."""
    cause, remedy = CAUSES.get(code, (f"the server answers {code}", "see the server's log"))
    return HoiError(f"cannot {what} in {url}: {cause}", remedy)


def _refusal(url: str, what: str, response: Any) -> HoiError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(response.get("Error", {}).get("Code", ""))
    if status == 304:
        return Unchanged(f"{what} in {url}: not modified", response)
    if status in CHANGED:
        return Conflict(url, what.partition(" ")[2])
    if code in LACKING:
        return Absent(f"cannot {what} in {url}: there is no such object", "name another one")
    if status >= 500 or status in BUSY:
        return Unreachable(f"cannot {what} in {url}: the server answers {status} {code}", _AWAY)
    return of_code(url, what, code)


def _translate(url: str, what: str, error: Exception) -> HoiError | None:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
        InvalidRegionError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    if isinstance(error, Boto3Error) and isinstance(error.__context__, ClientError):
        error = error.__context__  # of an upload in parts
    if isinstance(error, ClientError):
        return _refusal(url, what, error.response)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, ProfileNotFound)):
        return HoiError(f"cannot {what} in {url}: no credentials", _CREDENTIALS[1])
    if isinstance(error, (NoRegionError, InvalidRegionError)):
        return HoiError(f"cannot {what} in {url}: no region", "set AWS_REGION, e.g. to us-east-1")
    if isinstance(error, (ConnectionError, HTTPClientError, IncompleteReadError)):
        # Its text names the endpoint, which is no secret, and no header.
        return Unreachable(f"cannot {what} in {url}: the server does not answer: {error}", _AWAY)
    if isinstance(error, (BotoCoreError, Boto3Error)):
        return HoiError(f"cannot {what} in {url}: {error}", "see the message")
    return None
