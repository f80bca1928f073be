"""What clients may hold: connections, bytes and time."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.http import overload
from influxrelay.http.overload import Activity, AdmissionControl, ClientLimits

_LIMITS = ClientLimits(connections=4, in_flight=1000, header_timeout=10.0, body_timeout=20.0, idle_timeout=60.0)


class _Fake:
    """A client's connection that does what the test says."""

    def __init__(self, activity: Activity = Activity.HEAD, answered: int = 0) -> None:
        self.answered = answered
        self.drained = 0
        self.now = activity
        self.size = 0
        self.ended: Activity | str = ""
        self.control: AdmissionControl | None = None

    @property
    def progress(self) -> int:
        return self.answered + self.drained

    def activity(self) -> Activity:
        return Activity.CLOSING if self.ended else self.now

    def body_size(self) -> int:
        return self.size

    def expire(self, activity: Activity) -> None:
        self.ended = self.ended or activity

    def refuse_body(self) -> None:
        self.ended = "refused"
        if self.control is not None:
            self.control.release(self)

    def cut(self) -> None:
        self.ended = "cut"


class _ControlCase(SynchronousTestCase):
    """Admission control on a clock."""

    def setUp(self) -> None:
        """Have both."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.control = AdmissionControl("test", _LIMITS, self.clock)

    def admitted(self, *clients: _Fake) -> None:
        """Let clients connect, a second one after the other."""
        for client in clients:
            self.control.admit(client)
            self.pass_time(1)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([0.25] * int(seconds * 4))


class TimeTests(_ControlCase):
    """How long a client may take."""

    def test_patience(self) -> None:
        """Each thing that a client may wait with has its time, and is over soon after it."""
        for activity, seconds in (
            (Activity.HEAD, 10),
            (Activity.BODY, 20),
            (Activity.IDLE, 60),
            (Activity.UNREAD, overload.UNREAD),
            (Activity.CLOSING, overload.CLOSING),
        ):
            client = _Fake(activity, answered=1)
            self.admitted(client)
            self.pass_time(seconds - 2)
            self.assertEqual(client.ended, "", activity)
            self.pass_time(4)
            self.assertEqual(client.ended, activity)
            self.assertEqual(self.control.closed[activity.value], 1)
            self.control.forget(client)

    def test_slow_reader(self) -> None:
        """A client that reads its response slowly is not closed as long as it reads."""
        client = _Fake(Activity.UNREAD)
        self.admitted(client)
        for _ in range(20):
            self.pass_time(overload.UNREAD - 2)
            client.drained += 1
        self.assertEqual(client.ended, "")
        self.pass_time(overload.UNREAD + 2)
        self.assertEqual(client.ended, Activity.UNREAD)

    def test_our_own_time(self) -> None:
        """A client that waits for its answer is never closed."""
        client = _Fake(Activity.RESPONSE)
        self.admitted(client)
        self.pass_time(3600)
        self.assertEqual(client.ended, "")

    def test_slow_body(self) -> None:
        """A body that makes 1000 bytes a second has all the time it needs; a slower one has not."""
        slow, slower = _Fake(Activity.BODY), _Fake(Activity.BODY)
        self.admitted(slow, slower)
        for _ in range(300):
            slow.size += 1000
            slower.size += 900
            self.pass_time(1)
        self.assertEqual((slow.ended, slower.ended), ("", Activity.BODY))

    def test_busy_client(self) -> None:
        """Time begins anew with each request, whatever the client is seen to do."""
        client = _Fake(Activity.IDLE)
        self.admitted(client)
        for _ in range(40):
            client.answered += 1
            self.pass_time(30)
        self.assertEqual(client.ended, "")

    def test_no_clients(self) -> None:
        """Without clients there is no timer, and with many there is one."""
        clients = [_Fake(), _Fake(), _Fake()]
        self.admitted(*clients)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for client in clients:
            self.control.forget(client)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.control.forget(clients[0])


class NumberTests(_ControlCase):
    """How many clients there may be."""

    def test_who_goes(self) -> None:
        """Those without a request go first, the oldest of them; then the longest idle; then the slowest to write."""
        writing, idle, longer, silent, half = (
            _Fake(Activity.BODY, 3),
            _Fake(Activity.IDLE, 1),
            _Fake(Activity.IDLE, 1),
            _Fake(Activity.HEAD),
            _Fake(Activity.BODY),
        )
        everyone = [writing, idle, longer, silent]
        self.admitted(*everyone)
        idle.answered += 1
        self.pass_time(2)
        for gone in (silent, half, longer, idle, writing):
            newcomer = half if gone is silent else _Fake(Activity.RESPONSE)
            self.admitted(newcomer)
            self.assertEqual(gone.ended, "cut")
            self.control.forget(gone)
            self.assertEqual(newcomer.ended, "")
        self.assertEqual(self.control.closed["full"], 5)
        self.assertEqual(self.control.accepted, 9)

    def test_all_are_busy(self) -> None:
        """A new connection goes itself where all others wait for answers."""
        clients = [_Fake(Activity.RESPONSE) for _ in range(4)]
        newcomer = _Fake()
        self.admitted(*clients, newcomer)
        self.assertEqual([each.ended for each in (*clients, newcomer)], ["", "", "", "", "cut"])

    def test_many_at_once(self) -> None:
        """Where there are many, several go at once, and those that are on their way out count no more."""
        self.control.reconfigure("test", ClientLimits(connections=320))
        clients = [_Fake() for _ in range(330)]
        for client in clients:
            self.control.admit(client)
        self.assertEqual([index for index, each in enumerate(clients) if each.ended], list(range(10)))
        self.assertEqual(self.control.closed["full"], 10)


class MemoryTests(_ControlCase):
    """How many bytes may be in flight."""

    def uploads(self, *sizes: int) -> list[_Fake]:
        """Let bodies of these sizes be received; their connections stand for their requests, too."""
        clients = []
        for size in sizes:
            clients.append(client := _Fake(Activity.BODY))
            client.control = self.control
            self.control.reserve(client, size, client)
        return clients

    def test_largest_first(self) -> None:
        """The largest bodies are refused, as many as it takes, and the small ones stay."""
        *others, large, larger = self.uploads(100, 200, 350, 340)
        self.assertFalse(any(each.ended for each in (*others, large, larger)))
        self.assertTrue(self.control.reserve(larger, 100, larger))
        self.assertEqual([each.ended for each in (*others, large, larger)], ["", "", "", "refused"])
        self.assertEqual(self.control.in_flight, 650)

    def test_nothing_to_refuse(self) -> None:
        """What waits for its response is not refused; what is new is."""
        self.assertTrue(self.control.reserve("waiting", 900))
        self.assertFalse(self.control.reserve("new", 200))
        self.control.release("new")
        self.assertTrue(self.control.reserve("newer", 100))

    def test_complete(self) -> None:
        """A body that is complete is not refused for others."""
        complete, asking = self.uploads(600, 200)
        self.control.complete(complete)
        self.control.reserve(asking, 300, asking)
        self.assertEqual((complete.ended, asking.ended), ("", "refused"))

    def test_alone(self) -> None:
        """A body that is alone may be larger: max-body-size is its bound."""
        (alone,) = self.uploads(900)
        self.assertTrue(self.control.reserve(alone, 4100, alone))
        self.assertEqual(alone.ended, "")

    def test_small_beside_large(self) -> None:
        """Small requests go on beside a body that takes more than all of the memory, up to a quarter of it."""
        megabyte = 1024 * 1024
        self.control.reconfigure("test", ClientLimits(in_flight=8 * megabyte))
        self.assertTrue(self.control.reserve("large", 7 * megabyte))
        self.assertTrue(self.control.reserve("large", 4 * megabyte))
        small = 32 * 1024
        for number in range(2 * megabyte // small):
            self.assertTrue(self.control.reserve(number, small), number)
        self.assertFalse(self.control.reserve("one too many", small))
        self.assertFalse(self.control.reserve("not small", megabyte))

    def test_release(self) -> None:
        """What is released is counted no more, however often it is released."""
        self.control.reserve("one", 400)
        self.control.reserve("one", 200)
        self.control.reserve("two", 100)
        for _ in range(2):
            self.control.release("one")
            self.assertEqual(self.control.in_flight, 100)
