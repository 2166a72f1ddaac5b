"""What JAX traces, lowers and compiles in this process."""

from jax import monitoring

heard: list[str] = []  # to be cleared by whoever wants to know what happens from then on


def _listen(event: str, _seconds: float, **_: object) -> None:
    if event.startswith("/jax/core/compile/"):
        heard.append(event)


monitoring.register_event_duration_secs_listener(_listen)  # for good: JAX takes no listener back
