"""`--reuse`: is an output that lies there already what the command would make again?"""

import logging
from collections.abc import Iterable
from pathlib import Path

from nmlcli.errors import NmlError

log = logging.getLogger(__name__)


def up_to_date(out: str | None, identity: str, inputs: Iterable[str | Path] = ()) -> bool:
    """Whether out carries this identity and none of the input files is newer; says so where it does.

    Inputs that are no files (stdin, generated sets) count through the identity alone. An output that
    cannot be read is simply made again.
    """
    from nmlcli.products.formats import read_record

    if out in (None, "-") or not Path(str(out)).is_file():
        return False
    try:
        record = read_record(str(out))
    except NmlError as error:
        log.debug("%s; it is made again", error)
        return False
    if record is None or record.identity != identity:
        return False
    made = Path(str(out)).stat().st_mtime_ns
    if any(path.stat().st_mtime_ns > made for path in map(Path, inputs) if path.exists()):
        return False
    log.info("%s is up to date", out)
    return True
