"""The tasks for `fab`. It names a host as `inv` does: `fab backup --host NAME`, without -H."""

from tasks import namespace

__all__ = ["namespace"]
