"""Programs, and how each of them saves: in place, after emptying, through a temporary name, with a backup.

Rules of this file: a script runs in the directory of ``doc.md``, which holds ``OLD``; ``$NEW`` is a file of another
filesystem, of the same name, with what is to become of it. The system calls of programs that are too large to install
are repeated in Python as they were recorded.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.saving import need

OLD = "old line\n"
NEW = "new line\n"


@dataclass(frozen=True)
class Save:
    """One way to save.

    Attributes:
        script: what is run.
        becomes: what is then in ``doc.md``.
        tool: a program that it needs, and the package that has it.
        leaves: names that it leaves behind, of use on this machine alone.
        plain: it makes no other name in the directory that could be anybody's document.
    """

    name: str
    script: str
    becomes: str = NEW
    tool: tuple[str, str] = ("bash", "bash")
    leaves: frozenset[str] = frozenset()
    plain: bool = True

    @property
    def is_text(self) -> bool:
        """Tell whether every service can keep what becomes of the file."""
        return "\0" not in self.becomes

    def of(self, name: str) -> Save:
        """Return the same for a file of another name."""
        leaves = frozenset(left.replace("doc.md", name) for left in self.leaves)
        return Save(self.name, self.script.replace("doc.md", name), self.becomes, self.tool, leaves, self.plain)


def python(*lines: str) -> str:
    """Return the command that runs these lines, which have no double quotes."""
    return f'"{sys.executable}" -c "' + "; ".join(lines) + '"'


def emacs(*settings: str) -> str:
    """Return the command by which emacs replaces a word and saves."""
    settings = ("(setq backup-enable-predicate (lambda (_) t))", *settings)  # it makes none in /tmp by itself
    edit = '(find-file "doc.md") (search-forward "old") (replace-match "new") (save-buffer)'
    return f"emacs --batch -Q --eval '(progn {' '.join(settings)} {edit})' 2>&1"


VIM = ("vim", "vim")
EMACS = ("emacs", "emacs-nox")
RSYNC = ("rsync", "rsync")
DOS2UNIX = ("dos2unix", "dos2unix")
# vim makes no backup in /tmp by itself, where tests are.
EX = "vim -Nu NONE -n -es doc.md -c 'set nomore backupskip= {}' -c '%s/old/new/' -c 'wq'"
BACKUP = frozenset({"doc.md~"})

SAVES = [
    # -- the shell and its commands
    Save("echo", "echo 'new line' > doc.md"),
    Save("two commands into one file", "(echo new; echo line) > doc.md", "new\nline\n"),
    Save("append", "echo more >> doc.md", OLD + "more\n"),
    Save("cp", 'cp "$NEW" doc.md'),
    Save("cp -p", 'cp -p "$NEW" doc.md'),
    Save("cp --backup", 'cp --backup=simple --suffix="~" "$NEW" doc.md', leaves=BACKUP),
    Save("cp --backup, removed", 'cp --backup=simple --suffix="~" "$NEW" doc.md; rm "doc.md~"'),
    Save("cp --remove-destination", 'cp --remove-destination "$NEW" doc.md'),
    Save("tee", "echo 'new line' | tee doc.md >/dev/null"),
    Save("tee -a", "echo more | tee -a doc.md >/dev/null", OLD + "more\n"),
    Save("dd", 'dd if="$NEW" of=doc.md conv=fsync status=none'),
    Save("dd into the middle", "printf NEW | dd of=doc.md bs=1 seek=4 conv=notrunc status=none", "old NEWe\n"),
    Save("truncate", "truncate -s 3 doc.md", "old"),
    Save("truncate to longer", "truncate -s 12 doc.md", OLD + "\0\0\0"),
    Save("sort -o", "sort -r -o doc.md doc.md <(echo x)", "x\n" + OLD),
    Save("install", 'install -m 644 "$NEW" doc.md'),
    Save("mv from elsewhere", 'cp "$NEW" "$NEW.mv"; mv -f "$NEW.mv" doc.md'),
    Save("mv within", 'cp "$NEW" doc.md.part; mv doc.md.part doc.md'),
    Save("mv within by a name that is not passing", 'cp "$NEW" draft-doc.md; mv draft-doc.md doc.md', plain=False),
    Save("mktemp and mv", 't=$(mktemp -p .); cat "$NEW" > "$t"; mv "$t" doc.md'),
    Save("tar -x", 'tar -C "$(dirname "$NEW")" -cf "$NEW.tar" doc.md; tar -xf "$NEW.tar"'),
    Save("curl -o", 'curl -s -o doc.md "file://$NEW"', tool=("curl", "curl")),
    # -- what edits streams
    Save("sed -i", "sed -i s/old/new/ doc.md", tool=("sed", "sed")),
    Save("perl -i", "perl -i -pe s/old/new/ doc.md", tool=("perl", "perl")),
    Save("ed", "printf 's/old/new/\\nw\\nq\\n' | ed -s doc.md", tool=("ed", "ed")),
    Save("patch", "printf -- '--- doc.md\\n+++ doc.md\\n@@ -1 +1 @@\\n-old line\\n+new line\\n' | patch -s doc.md",
         tool=("patch", "patch")),
    Save("unix2dos", "unix2dos -q doc.md", "old line\r\n", tool=DOS2UNIX),
    Save("rsync", 'rsync -a "$(dirname "$NEW")/doc.md" doc.md', tool=RSYNC),
    Save("rsync --inplace", 'rsync -a --inplace "$NEW" doc.md', tool=RSYNC),
    # -- programming languages, and what is written in them
    Save("python open", python("open('doc.md', 'w').write('new line\\n')")),
    Save("python in place with fsync", python("import os", "f = open('doc.md', 'r+b')", "f.write(b'new')", "f.flush()",
         "os.fsync(f.fileno())", "f.seek(4)", "f.write(b'LINE')", "f.flush()", "os.fsync(f.fileno())"), "new LINE\n"),
    Save("python mmap", python("import mmap", "f = open('doc.md', 'r+b')", "m = mmap.mmap(f.fileno(), 0)",
         "m[0:3] = b'new'", "m.flush()", "m.close()", "f.close()")),
    Save("python os.replace", python("import os, tempfile", "f, n = tempfile.mkstemp(dir='.')",
         "os.write(f, b'new line\\n')", "os.fsync(f)", "os.close(f)", "os.replace(n, 'doc.md')")),
    Save("write-file-atomic", python("import os", "n = 'doc.md.tmp.321.1700000000'",
         "f = open(n, 'w')", "f.write('new line\\n')", "f.flush()", "os.fsync(f.fileno())", "f.close()",
         "os.chmod(n, 0o644)", "os.rename(n, 'doc.md')")),
    Save("VS Code, a document", python("import os", "f = os.open('doc.md', os.O_WRONLY | os.O_TRUNC | os.O_CREAT)",
         "os.write(f, b'new line\\n')", "os.fdatasync(f)", "os.close(f)")),
    Save("VS Code, its own files", python("import os", "n = 'doc.md.vsctmp'", "f = open(n, 'w')",
         "f.write('new line\\n')", "f.flush()", "os.fdatasync(f.fileno())", "f.close()", "os.rename(n, 'doc.md')")),
    Save("gio: renamed while open", python("import os", "f = open('.goutputstream-PBAGZ3', 'w')",
         "f.write('new line\\n')", "f.flush()", "os.fsync(f.fileno())", "os.rename(f.name, 'doc.md')", "f.close()")),
    Save("LibreOffice", python("import os", "open('.~lock.doc.md#', 'w').write(',me,here,;')",
         "open('lu1234abc.tmp', 'w').write('new line\\n')", "f = os.open('doc.md', os.O_RDWR)", "os.ftruncate(f, 0)",
         "os.write(f, b'new line\\n')", "os.fsync(f)", "os.close(f)", "os.unlink('lu1234abc.tmp')",
         "os.unlink('.~lock.doc.md#')")),
    # -- editors
    Save("emacs: a second open without a write", "echo 'new line' > doc.md; exec 9<>doc.md; exec 9>&-"),
    Save("emacs", emacs(), tool=EMACS, leaves=BACKUP),
    Save("emacs, backup by copying", emacs("(setq backup-by-copying t)"), tool=EMACS, leaves=BACKUP),
    Save("emacs, no backup", emacs("(setq make-backup-files nil)"), tool=EMACS),
    Save("emacs, file-precious-flag", emacs("(setq file-precious-flag t make-backup-files nil)"), tool=EMACS),
    Save("vim backupcopy=auto", EX.format("backup backupcopy=auto"), tool=VIM, leaves=BACKUP),
    Save("vim writebackup backupcopy=auto", EX.format("writebackup backupcopy=auto"), tool=VIM),
    Save("vim backupcopy=yes", EX.format("writebackup backupcopy=yes"), tool=VIM),
    Save("vim backupcopy=no", EX.format("writebackup backupcopy=no"), tool=VIM),
    Save("vim nowritebackup", EX.format("nowritebackup"), tool=VIM),
    Save("vim with a swap file", "vim -Nu NONE -es doc.md -c 'set nomore backupskip=' -c '%s/old/new/' -c 'wq'",
         tool=VIM),
]  # fmt: skip

# Opens, times, modes, owners, and what is there already.
NO_SAVES = [
    "touch doc.md",
    "touch -d '2020-01-01' doc.md",
    "chmod 600 doc.md",
    "chmod +x doc.md",
    'chown "$(id -u):$(id -g)" doc.md',
    ": >> doc.md",
    "exec 9<>doc.md; exec 9>&-",
    'printf "old line\\n" > doc.md',
    "truncate -s 9 doc.md",
    "cat doc.md; head -c 3 doc.md; wc -c doc.md; cksum doc.md; grep old doc.md; file doc.md || true",
    "vim -Nu NONE -es doc.md -c 'qa!' < /dev/null || true",
    "vim -Nu NONE -es doc.md -c '%s/old/new/' -c 'sleep 300m' -c 'qa!' < /dev/null || true",
    'cp doc.md "$NEW.copy"; cp "$NEW.copy" doc.md; rm "$NEW.copy"',
    "emacs --batch -Q doc.md --eval '(progn (set-buffer-modified-p t) (basic-save-buffer))' 2>&1; rm -f doc.md~",
    "sed -i s/nowhere/new/ doc.md",
    "touch .DS_Store ._doc.md 4913; rm .DS_Store ._doc.md 4913",
]


def prepared(tmp_path: Path, save: Save, name: str = "doc.md") -> dict[str, Any]:
    """Make what a script needs outside of its directory; return its variables."""
    need(*save.tool)
    new = tmp_path / name
    new.write_text(NEW)
    os.utime(new, (1_600_000_000, 1_600_000_000))
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return {"NEW": str(new), "TERM": "dumb", "HOME": str(home)}


def by_name(saves: list[Save]) -> list[object]:
    """Return parameters that are named after the programs."""
    return [pytest.param(save, id=save.name) for save in saves]
