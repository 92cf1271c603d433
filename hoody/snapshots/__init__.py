"""What containers had at an instant: kept under a name, put back, sent to other servers."""
