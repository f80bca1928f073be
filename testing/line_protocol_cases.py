"""Line protocol by tables, by Hypothesis strategies and at random, with what is expected of each line."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

NOW = 1_763_700_000_123_456_789
STAMP = b" 1763700000123456789"

# Accepted, and without a timestamp.
UNTIMED = [
    # the values of fields
    b"cpu v=1",
    b"cpu v=-1",
    b"cpu v=1.5",
    b"cpu v=1.",
    b"cpu v=.5",
    b"cpu v=-.5",
    b"cpu v=007",
    b"cpu v=1e3",
    b"cpu v=1E3",
    b"cpu v=1e+3",
    b"cpu v=-1.5e-3",
    b"cpu v=1e308",
    b"cpu v=1e-999",
    b"cpu v=123456789012345678901234567890",
    b"cpu v=1i",
    b"cpu v=-0i",
    b"cpu v=9223372036854775807i",
    b"cpu v=-9223372036854775808i",
    b"cpu v=00000000000000000000000000001i",
    b"cpu v=t,w=T,x=true,y=True,z=TRUE",
    b"cpu v=f,w=F,x=false,y=False,z=FALSE",
    b'cpu s=""',
    b'cpu s="a b"',
    b'cpu s="a,b=c"',
    b'cpu s="1763700000123456789"',
    b'cpu s="x 1763700000123456789"',
    b'cpu s="# no comment"',
    b'cpu s="two\nlines"',
    b'cpu s="x 1763700000123456789\ncpu v=1"',
    b'cpu s="x\n\n\ny",v=1',
    b'cpu s="\r\n"',
    b'cpu s="say \\"hi\\" 12"',
    b'cpu s="back\\\\slash"',
    b'cpu s="ends in one\\\\"',
    b'cpu s="\\n is no newline"',
    b'cpu s="escaped\\\nnewline"',
    b'cpu s="\xff\xfe\x00"',
    'cpu s="größe 12\u2028"'.encode(),
    b'cpu s="a",t="b",v=1i',
    # names
    b"a v=1",
    b'"cpu" v=1',
    b'cpu"1 v=1',
    b"cpu=1 v=1",
    b"1 v=1",
    b"c#pu v=1",
    b"cpu,host=a v=1",
    b"cpu,host=a,region=b v=1",
    b'cpu,host="a v=1',
    b'cpu,host="a,b="c v=1',
    b"cpu,a== v=1",
    b"cpu,host=a#b v=1",
    b"my\\ cpu v=1",
    b"my\\,cpu v=1",
    b"my\\,cpu,host=a v=1",
    b"cpu\\ v\\=1 w=1",
    b"\\cpu v=1",
    b"\\#cpu v=1",
    b"cpu\\\\,a v=1",
    b"cpu\\\\ a v=1",
    b"cpu,my\\ host=a v=1",
    b"cpu,my\\,host=a v=1",
    b"cpu,my\\=host=a v=1",
    b"cpu,host=a\\ b v=1",
    b"cpu,host=a\\,b\\=c v=1",
    b"cpu,path=C:\\dir v=1",
    b"cpu,path=C:\\\\dir v=1",
    "größe,straße=ärger übel=1".encode(),
    b"cpu my\\ v=1",
    b"cpu my\\,v=1",
    b"cpu my\\=v=1",
    b'cpu "v"=1',
    b'cpu v"w=1',
    b"cpu \\v=1",
    b"cpu v\\\\w=1",
    b"cpu v=1,v=2",
    b"cpu\tx v=1",
    b"cpu\r v=1",
    # blanks
    b"cpu  v=1",
    b"cpu \t v=1",
    b" cpu v=1",
    b"\t\0 cpu,host=a v=1",
    b"cpu v=1 ",
    b"cpu v=1   ",
    b"cpu v=1 \t",
    b"cpu v=1 \0 \t ",
    b'cpu s="x" ',
    # what a parser for the documentation would refuse
    b'cpu s="x"\r',
    b'cpu s="x"tail',
    b'cpu s="x""y"',
    b'cpu s="x"\\ 12',
    b'cpu a,b="x"=1',
    b"cpu \t=1",
    b"cpu \\ =1",
]

# Accepted by InfluxDB 2, and by 1.x only if it was built for them.
UNSIGNED = [b"cpu v=1u,w=2i", b"cpu v=18446744073709551615u", b"cpu v=0u "]

# Accepted, and with a timestamp.
TIMED = [
    b"cpu v=1 1763700000123456789",
    b"cpu v=1 1763700000",
    b"cpu v=1 0",
    b"cpu v=1 -1",
    b"cpu v=1 -9223372036854775806",
    b"cpu v=1 9223372036854775806",
    b"cpu v=1 0000000000000000000000001",
    b"cpu v=1   12",
    b"cpu v=1 \t12",
    b"cpu v=1 12  ",
    b" cpu v=1 12",
    b"cpu,host=a v=1,w=2i 12",
    b'cpu s="x" 12',
    b'cpu s="x\ny" 12',
    b'cpu s="\\"" 12',
    b'cpu s="\\\\" 12',
    b'cpu s="x"\r 12',
    b"my\\ cpu,my\\ host=a\\ b my\\ v=1 12",
    b"cpu\\\\ a v=1 12",
]

# Refused by InfluxDB, whatever one appends.
MALFORMED = [
    b"cpu",
    b"cpu ",
    b"cpu 12",
    b"12",
    b"\r",
    b",host=a v=1",
    b"cpu, v=1",
    b"cpu,host v=1",
    b"cpu,host= v=1",
    b"cpu,=a v=1",
    b"cpu,host=a,v=1",
    b"cpu,host=a=b v=1",
    b"cpu,a=== v=1",
    b"cpu,host=a\\ v=1",
    b"cpu\\ v=1",
    b"cpu\tv=1",
    b"cpu v",
    b"cpu v=",
    b"cpu =1",
    b"cpu v=,w=1",
    b"cpu v=1,",
    b"cpu v=1,w",
    b"cpu v=1,=2",
    b"cpu v=1,,w=2",
    b"cpu v= 1",
    b"cpu v=1, w=2",
    b"cpu v\\=1",
    b"cpu v=1=2",
    b'cpu s="x"=1,t',
    b"cpu v\\\\=1",
    b"cpu v=x",
    b"cpu v='x'",
    b"cpu v=-",
    b"cpu v=.",
    b"cpu v=-.",
    b"cpu v=+1",
    b"cpu v=--1",
    b"cpu v=1.1.1",
    b"cpu v=1e",
    b"cpu v=e1",
    b"cpu v=1e5e5",
    b"cpu v=1e999",
    b"cpu v=1i2",
    b"cpu v=1.0i",
    b"cpu v=1ii",
    b"cpu v=1iu",
    b"cpu v=-1u",
    b"cpu v=0x1f",
    b"cpu v=1_000",
    b"cpu v=9223372036854775808i",
    b"cpu v=-9223372036854775809i",
    b"cpu v=18446744073709551616u",
    b"cpu v=" + 400 * b"9",
    b"cpu v=" + 9000 * b"9" + b"i",
    b"cpu v=nan",
    b"cpu v=NaN",
    b"cpu v=inf",
    b"cpu v=tRUE",
    b"cpu v=truE",
    b"cpu v=tru",
    b"cpu v=yes",
    b"cpu v=1\t",
    b"cpu v=1\r",
    b"cpu v=1i\r",
    b"cpu v=t\r",
    b"cpu v=1 12\r",
    b'cpu s="x" 12\r',
    b"cpu v=1 \r",
    b"cpu v=1 12\t",
    b"cpu v=1 12 13",
    b"cpu v=1 12 x",
    b"cpu v=1 12a",
    b"cpu v=1 1.5",
    b"cpu v=1 1e9",
    b"cpu v=1 +12",
    b"cpu v=1 -",
    b"cpu v=1 1-2",
    b"cpu v=1 now",
    b"cpu v=1 # comment",
    b"cpu v=1 9223372036854775807",
    b"cpu v=1 99999999999999999999",
    b'cpu s="x" y 12',
    b'cpu s="x" "y" 12',
]

# Read as no point at all.
SKIPPED = [
    b"",
    b" ",
    b" \t\0 ",
    b"#",
    b"# cpu v=1",
    b"  # cpu v=1",
    b"#cpu v=1 12",
    b'# it is 12" wide',
    b"# comment\r",
    b'# a="quote opens\ncpu v=1\nand closes"',
    b"# escaped newline \\\ncpu v=1",
]
ALL = UNTIMED + UNSIGNED + TIMED + MALFORMED + SKIPPED

# What becomes of a line.
STAMPED = {line: line for line in ALL} | {line: line.rstrip(b" \t\0") + STAMP for line in UNTIMED + UNSIGNED}


def names(forbidden: bytes) -> st.SearchStrategy[bytes]:
    """Make names in which the bytes that need it are escaped."""
    character = st.one_of(
        st.sampled_from('abz019-_./"#é漢😀\r').map(str.encode),
        st.integers(0, len(forbidden) - 1).map(lambda index: b"\\" + forbidden[index : index + 1]),
    )
    return st.lists(character, min_size=1, max_size=6).map(b"".join)


STRINGS = st.text('ab 1,=#\n\r\t\\"é', max_size=12).map(
    lambda text: b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
)
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: repr(value).encode()),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: b"%di" % value),
    st.integers(0, 2**64 - 1).map(lambda value: b"%du" % value),
    st.sampled_from([b"t", b"T", b"true", b"True", b"TRUE", b"f", b"F", b"false", b"False", b"FALSE"]),
    STRINGS,
)
MEASUREMENTS = names(b", ").filter(lambda name: not name.startswith(b"#"))
PAIRS = st.tuples(names(b",= "), names(b",= ")).map(b"=".join)
FIELDS = st.lists(st.tuples(names(b",= "), VALUES).map(b"=".join), min_size=1, max_size=4).map(b",".join)
SERIES = st.tuples(MEASUREMENTS, st.lists(PAIRS, max_size=3)).map(lambda parts: b",".join([parts[0], *parts[1]]))
POINTS = st.tuples(SERIES, st.sampled_from([b" ", b"  "]), FIELDS).map(b"".join)
TIMES = st.integers(-(2**63) + 2, 2**63 - 2).map(lambda value: b" %d" % value)
COMMENTS = st.sampled_from([b"", b" ", b"\t", b"# comment", b"  # comment"])

# Lines, each with what becomes of it.
LINES = st.one_of(
    st.tuples(POINTS, TIMES).map(b"".join).map(lambda line: (line, line)),
    st.tuples(POINTS, st.sampled_from([b"", b" ", b"  "])).map(lambda parts: (parts[0] + parts[1], parts[0] + STAMP)),
    st.sampled_from(MALFORMED).map(lambda line: (line, line)),
    COMMENTS.map(lambda line: (line, line)),
)
BODIES = st.tuples(st.lists(LINES, max_size=8), st.sampled_from([b"", b"\n"])).map(
    lambda parts: tuple(b"\n".join(line[side] for line in parts[0]) + parts[1] for side in (0, 1))
)
RUBBISH = st.one_of(
    st.lists(st.sampled_from([bytes([byte]) for byte in b'a 1=,"\\\n#-i\t\r.u']), max_size=40).map(b"".join),
    st.lists(
        st.sampled_from([b"a", b" ", b"b=", b'"', b"\\", b"\n", b",", b"=", b"1", b" 1\n", b'="']), max_size=20
    ).map(b"".join),
    st.lists(st.sampled_from([*ALL, b'"', b"\\", b" ", b"\n", b"a b=1"]), max_size=5).map(b"\n".join),
)


def random_line(random: Random, time: int | None) -> bytes:
    """Return a valid line of any kind; the name of a field tells its type, so that lines never conflict."""

    def text(alphabet: str, least: int = 1) -> str:
        return "".join(random.choices(alphabet, k=random.randint(least, 12)))

    def escaped(what: str, special: str) -> str:
        return "".join(f"\\{sign}" if sign in special else sign for sign in what)

    def value(kind: str) -> str:
        match kind:
            case "f":
                return random.choice(["0", "-1.5", "1e3", "2.5E-3", ".5", "7.", str(random.uniform(-1e9, 1e9))])
            case "i":
                return f"{random.choice([0, -(2**63), 2**63 - 1, random.randint(-(10**9), 10**9)])}i"
            case "b":
                return random.choice(["t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"])
            case _:
                return '"' + escaped(text('ab 0,=#é\\"\n', 0), '"\\') + '"'

    names = "abcXYZ019_-.:äß ,="
    parts = [escaped("m" + text(names), " ,")]
    parts += [f"t{key}={escaped('v' + text(names), ' ,=')}" for key in range(random.randint(0, 3))]
    kinds = random.sample(["f", "i", "b", "s"], random.randint(1, 4))
    fields = ",".join(f"{kind}{escaped(random.choice(['', ' x', ',y', '=z']), ' ,=')}={value(kind)}" for kind in kinds)
    return f"{','.join(parts)} {fields}{'' if time is None else f' {time}'}".encode()
