"""What becomes of a write of ``influxrelay repair``, in the words of the relay and of the command."""

TAKEN, REFUSED, DENIED, NOT_NOW, PAUSED = "taken", "refused", "denied", "not now", "paused"
OUTDATED = "outdated"
"""The backend has it; it has refused some or all of it; it has refused the credentials; it cannot take it now; an
operator has paused it; a change was executed since the lines were read."""
