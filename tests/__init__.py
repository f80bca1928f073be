"""The tests: run them with `make test`, or some with `make test TESTS=tests.test_lane`."""
