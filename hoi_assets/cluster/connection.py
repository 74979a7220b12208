"""The connection to the cluster that `RAY_ADDRESS` names."""

import os
import socket
from urllib.parse import urlsplit

from hoi_assets.errors import HoiError

VARIABLE = "RAY_ADDRESS"
# A head on the network answers in milliseconds.
ANSWER_S = 5.0
FOUND_BY_RAY = ("auto", "local")
REMEDY = (
    "start the head (`ray start --head --port 6379`) and set RAY_ADDRESS to <its host>:6379 on a "
    "node of the cluster, to ray://<its host>:10001 elsewhere; or unset HOI_EXECUTOR"
)


def ray_address() -> str:
    """What `RAY_ADDRESS` names.

    Raises:
        HoiError: nothing, or no address of a head.
    """
    address = os.environ.get(VARIABLE, "").strip()
    if not address:
        raise HoiError(f"{VARIABLE} is not set, and HOI_EXECUTOR is ray", REMEDY)
    if address not in FOUND_BY_RAY:
        _host_and_port(address)
    return address


def require_head() -> None:
    """Refuse a head that does not answer, within some seconds.

    Raises:
        HoiError: as `ray_address`; Ray is not installed, or the head does not answer.
    """
    address = ray_address()
    require_installed()
    if address in FOUND_BY_RAY:
        return  # Ray looks for it on this machine, and says at once what it finds
    host, port = _host_and_port(address)
    problem = _problem(host, port)
    if problem is not None:
        raise HoiError(f"the Ray head at {address} ({VARIABLE}) does not answer: {problem}", REMEDY)


def require_installed() -> None:
    """Refuse an environment without Ray.

    Raises:
        HoiError: it is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise HoiError(
            f"HOI_EXECUTOR is ray, and Ray cannot be imported: {error}",
            "pip install 'hoi-assets[ray]', on every node; or unset HOI_EXECUTOR",
        ) from error


def connect() -> None:
    """Connect this process to the cluster, unless it is connected.

    Raises:
        HoiError: as `require_head`, or Ray cannot connect.
    """
    require_head()
    import ray

    if ray.is_initialized():
        return
    address = ray_address()
    try:
        # Workers report by what they return; their output stays in the logs of their nodes.
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        # A server's error comes with its traceback.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(dict.fromkeys((*lines[:1], *lines[-1:])))
        raise HoiError(f"no connection to the Ray cluster {address}: {said}", REMEDY) from error


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.scheme not in ("", "ray"):
        raise HoiError(f"{VARIABLE} is {address!r}, which is no address of a Ray head", REMEDY)
    return host, port


def _problem(host: str, port: int) -> str | None:
    """Why no gRPC server answers there; None where one does."""
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except OSError as error:
        return str(error)
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return None  # only Ray knows the certificates
    import grpc

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        except grpc.FutureTimeoutError:
            return f"the port is open, and no Ray answered in {ANSWER_S:g} s"
    return None
