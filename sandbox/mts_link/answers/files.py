"""Answers about files and converted records."""

from typing import Any

from sandbox.mts_link.answers.base import Base
from sandbox.mts_link.org import CONVERTED, FILE, SESSION, stamp
from sandbox.mts_link.wire import NOT_FOUND, ApiError, Query, by_offset, instant, whole


class Files(Base):
    """Methods of files."""

    def _file(self, number: int, name: str, *, kind: str = "file", **more: Any) -> dict[str, Any]:
        return {
            "id": number if number % 2 else str(number),
            "isDeleted": False,
            "createAt": stamp(self.org.zero + number % 1000 * 600),
            "name": name,
            "type": kind,
            "thumbnails": [] if number % 2 else {"50x50": "https://storage.example.com/50x50.jpg"},
            "uploadUrl": f"https://storage.example.com/upload?token={number:032d}&extension=pdf",
        } | more

    def folder_of(self, number: int) -> int | None:
        """Folders 0..2 lie at the top, folder 3 in folder 0; files follow."""
        return 0 if number == 3 else None

    def files(self, query: Query) -> Any:
        parent = whole(query, "parent") - FILE if "parent" in query else None
        if parent is not None and not 0 <= parent < 4:
            raise ApiError(404, NOT_FOUND)
        folders = [n for n in range(4) if self.folder_of(n) == parent]
        rows = [self._file(FILE + n, f"Папка {n}", kind="folder") for n in folders]
        of = {"parent": {"id": FILE + parent, "name": f"Папка {parent}"} if parent is not None else None}
        return [r | of for r in [*rows, *map(self._plain_file, self.files_in(parent))]]

    def files_in(self, folder: int | None) -> list[int]:
        """Numbers of the files of a folder, those of the top for None."""
        size, first = self.org.config.files_per_folder, 100 + (-1 if folder is None else folder) * 1000 + 1000
        return [first + n for n in range(size)]

    def _plain_file(self, n: int) -> dict[str, Any]:
        return self._file(
            FILE + n,
            f"slides {n}.pdf",
            typeFile="presentation",
            url=f"https://storage.example.com/files/{n}.pdf",
            downloadUrl=f"https://storage.example.com/download/{n}.pdf",
            format="pdf",
            size=1000 + n,
        )

    def file(self, query: Query, file: str) -> Any:
        number = int(file) if file.isdigit() else 0
        s = number - CONVERTED
        if self.org.exists(s) and self.is_converted(s):
            return self.converted_file(s)
        n = number - FILE
        folders = (None, 0, 1, 2, 3)
        if not any(n in self.files_in(f) for f in folders):
            raise ApiError(404, NOT_FOUND)
        return self._plain_file(n) | {"mimeType": "application/pdf", "path": f"./files/{n}.pdf"}

    def converted_file(self, s: int) -> dict[str, Any]:
        """A converted record as a file."""
        return self._file(
            CONVERTED + s,
            f"Вебинар {self.org.event_of(s)}.mp4",
            createAt=stamp(self.org.end(s) + 3600),
            typeFile="ConvertedRecord",
            downloadUrl=self.file_url(CONVERTED + s),
            size=self.size_of(CONVERTED + s),
            format="mp4",
            mimeType="video/mp4",
            state="completed",
            progress=100,
            convertedAt=stamp(self.org.end(s) + 5000),
            eventSession={"id": SESSION + s, "name": f"Вебинар {self.org.event_of(s)}"},
            cuts=[],
            password="secret",
            isViewable=True,
        )

    def converted_files(self, query: Query) -> Any:
        since = instant(query, "from")
        until = instant(query, "to", self.org.clock.now())
        found = [s for s in self.org.session_numbers() if self.is_converted(s)]
        found = [s for s in found if since <= self.org.end(s) + 3600 <= until]
        return by_offset(query, found, self.converted_file, 10, 500)

    def _attachments(self, n: int, at: int) -> list[dict[str, Any]]:
        file = self._plain_file(100 + n % self.org.config.files_per_folder)
        return [{"id": 520001 + n, "isDeleted": False, "createAt": stamp(at), "file": file}]

    def session_files(self, query: Query, session: str) -> Any:
        s = self.session(session)
        return self._attachments(s, self.org.start(s)) if s % 3 == 0 else []

    def series_files(self, query: Query, event: str) -> Any:
        e = self.event(event)
        return self._attachments(500_000 + e, self.org.zero) if e % 2 == 0 else []
