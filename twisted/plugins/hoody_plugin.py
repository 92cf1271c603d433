"""What makes ``twistd hoody`` known to twistd."""

from twisted.application.service import ServiceMaker

hoody = ServiceMaker(
    "hoody",
    "hoody.tap",
    "Long-lived things as URLs: pipes, progress, cron, snapshots, sleeping containers.",
    "hoody",
)
