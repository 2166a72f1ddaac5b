"""What JAX traces, lowers and compiles in this process, what of it no cache had, and how strict other processes are."""

from jax import monitoring

heard: list[str] = []  # to be cleared by whoever wants to know what happens from then on
missed: list[str] = []  # likewise

# Warnings are errors in processes of their own, too, but for the one of pyproject about the cache that they share.
STRICT = ["-W", "error", "-W", "ignore:Error reading persistent compilation cache entry:UserWarning"]


def _listen(event: str, _seconds: float, **_: object) -> None:
    if event.startswith("/jax/core/compile/"):
        heard.append(event)


def _listen_to_cache(event: str, **_: object) -> None:
    if event == "/jax/compilation_cache/cache_misses":
        missed.append(event)


monitoring.register_event_listener(_listen_to_cache)
monitoring.register_event_duration_secs_listener(_listen)  # for good: JAX takes no listener back
