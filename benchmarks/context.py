"""What a step needs of the engine, and no more: its hosts and places; a warning fails."""


class Context:
    """Every role is one host, or what `places` says by role."""

    def __init__(self, host, records=None, **storages):
        self._host, self._places, self._records = host, storages, records or {}

    def host(self, _role):
        return self._host

    def storage(self, file):
        return self._places.get(file.role, self._host)

    def records(self):
        return self._records

    def failures(self):
        return {}

    def warn(self, text):
        raise AssertionError(text)

    def __getattr__(self, _name):
        return lambda *_words, **_facts: None
