"""The tests: run them with `make test`, or some with `make test TESTS=tests.unit.delivery.test_sender`."""
