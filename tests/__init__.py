"""The tests: run them with `make test`, or some with `make test TESTS=tests.unit.delivery.test_sender`."""

from hypothesis import HealthCheck, settings

# How long an example takes, or how long it takes to make one, says more about the machine than about the code.
settings.register_profile("influxrelay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("influxrelay")
