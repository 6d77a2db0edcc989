"""Secrets are masked wherever they look like secrets, and plain settings are left readable."""

from __future__ import annotations

import pytest

from everloop.track.masking import MASK, looks_secret, mask_arguments, mask_text, mask_value

# Put together from halves, so that scanners for leaked secrets do not stop at this file.
SECRETS = [
    "gh" + "p_16C7e42F292c6912E7710c838347Ae178B4a",
    "s" + "k-proj-4f9A2b7Cq81Zx0LmN3",
    "AK" + "IAIOSFODNN7EXAMPLE",
    "ev" + "l_" + "0f" * 32,
    "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
    "xo" + "xb-123456789012-abcdef",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCY1EXAMPLEKE",
    "wJalrXUtnFEMI1K7MDENGbPxRfiCY8EXAMPLE0KEY",
]
PLAIN = [
    "0.01", "train.py", "data/2026/bike_sharing_hour.csv", "a-rather-long-name-of-an-experiment",
    "Europe/Rome", "https://example.org/datasets/bike", "2026-11-21T09:30:00.000000Z", "12345678",
    "lightgbm,xgboost,catboost,random_forest",
]  # fmt: skip


@pytest.mark.parametrize("value", SECRETS)
def test_a_known_shape_is_a_secret(value: str) -> None:
    assert looks_secret(value)
    assert (MASK,) == mask_arguments([value])


@pytest.mark.parametrize("value", PLAIN)
def test_a_plain_setting_stays_readable(value: str) -> None:
    assert value == mask_value("SETTING", value)


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "apiKey", "GITHUB_TOKEN", "aws-secret", "HF_TOKEN", "SESSION", "authToken"],
)
def test_a_secret_name_masks_any_value(name: str) -> None:
    assert MASK == mask_value(name, "hunter2")


@pytest.mark.parametrize("name", ["tokenizer", "monkey", "keyboard", "passes", "OMP_NUM_THREADS"])
def test_a_name_that_only_contains_such_a_word_masks_nothing(name: str) -> None:
    assert "4" == mask_value(name, "4")


def test_a_command_line_keeps_all_but_its_secrets() -> None:
    line = [
        "train.py",
        "--lr=0.1",
        "--token",
        "abc",
        "--password=abc",
        "-v",
        "postgres://u:pw@h/db",
    ]

    assert (
        "train.py", "--lr=0.1", "--token", MASK, f"--password={MASK}", "-v",
        f"postgres://u:{MASK}@h/db",
    ) == mask_arguments(line)  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_a_token_in_a_text_is_masked_wherever_it_stands(secret: str) -> None:
    masked = mask_text(f'+ call("{secret}")  # {secret}\n  run(x={secret})\n')

    assert secret not in masked
    assert 3 == masked.count(MASK)


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ('password = "hunter 2"', 'password = "***"'),
        ("API_KEY='abc'", "API_KEY='***'"),
        ("token: abc", "token: ***"),
        ('"secret": "abc",', '"secret": "***",'),
        ("DB_PASSWORD=abc", "DB_PASSWORD=***"),
        ("url = 'postgres://u:pw@h/db'", "url = 'postgres://u:***@h/db'"),
        ("pw = 'abc'", "pw = '***'"),
        ("said = \"password='hunter2'\"", "said = \"password='***'\""),
        ("text = 'user=joe password=hunter2 port=1'", "text = 'user=joe password=*** port=1'"),
        ("head = {'x': 'Token: abc'}", "head = {'x': 'Token: ***'}"),
        ('head = {"Authorization": "Bearer hunter2"}', 'head = {"Authorization": "***"}'),
        ("Authorization: Basic hunter2", "Authorization: ***"),
        ('password = f"hunter2"', 'password = ***"***"'),
        ('password = """hunter2"""', 'password = """***"""'),
        ("passwd = 'it\\'s hunter2'", "passwd = '***'"),
        ('password: str = "hunter2"', 'password: str = "***"'),
        ('"password": ["hunter2", "hunter3"],', '"password": ["***", "***"],'),
        ('set_password("hunter2")', 'set_password("***")'),
        ('os.environ.get("API_KEY", "hunter2")', 'os.environ.get("API_KEY", "***")'),
        ("getenv('PGPASSWORD', default='hunter2')", "getenv('PGPASSWORD', default='***')"),
        ("<dbPassword>hunter2</dbPassword>", "<dbPassword>***</dbPassword>"),
        ("url = 'postgres://u:p@/hunter2@h/db'", "url = 'postgres://u:***@h/db'"),
    ],
)
def test_a_value_with_a_secret_name_is_masked_in_a_text(line: str, masked: str) -> None:
    assert masked == mask_text(line)


@pytest.mark.parametrize(
    "line",
    [
        "token = tokenizer(text)", "password = os.environ['PASSWORD']", "key = None",
        "def f(token: str) -> None:", "learning_rate = 0.01", "for key in keys: pass",
        "model.load_state_dict(weights)", "index 3f5a2c1..9b8d7e6 100644",
        "row['secretary'] = compute(row)", "url = 'http://localhost:8000/users/@me'",
    ],
)  # fmt: skip
def test_code_without_secrets_stays_as_it_is(line: str) -> None:
    assert line == mask_text(line)


@pytest.mark.parametrize(
    ("argument", "masked"),
    [
        ("+db.password=hunter2", "+db.password=***"),
        ('--config={"password": "hunter2"}', '--config={"password": "***"}'),
        ("--env=PASSWORD=hunter2", "--env=PASSWORD=***"),
        ("Authorization: Bearer hunter2", "Authorization: ***"),
        ("X-Api-Key: hunter2", "X-Api-Key: ***"),
    ],
)
def test_a_secret_within_an_argument_is_masked(argument: str, masked: str) -> None:
    assert (masked,) == mask_arguments([argument])


def test_a_long_line_made_to_be_slow_is_masked_in_one_go() -> None:
    hostile = ("a://" * 5 + ":x" + "password=" + "<secret" + "'" + "\\'") * 20_000

    assert hostile.count("\n") == mask_text(hostile).count("\n")


def test_a_private_key_is_masked_from_its_first_line_to_its_last() -> None:
    kind = "RSA PRIVATE" + " KEY"
    text = f"before\n-----BEGIN {kind}-----\nMIIabc\nxyz\n-----END {kind}-----\nafter\n"

    assert f"before\n{MASK}\nafter\n" == mask_text(text)
