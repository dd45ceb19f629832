"""Where tests find what lies beside them."""

from pathlib import Path

TESTS = Path(__file__).parent
FIXTURES = TESTS / "fixtures"
CHECKOUT = TESTS.parent
