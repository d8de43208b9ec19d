"""Rows of a stack's database, asked for over a connection that is kept."""

import asyncio
import threading
from typing import Any

import asyncpg


class Rows:
    """A connection to each database, used from any thread, whether or not an event loop runs in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._kept: dict[str, asyncpg.Connection[asyncpg.Record]] = {}
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def fetch(self, url: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement, over a new connection where the server has closed the last one."""
        return asyncio.run_coroutine_threadsafe(self._fetch(url, statement, *arguments), self._loop).result()

    async def _fetch(self, url: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = self._kept.get(url)
        if connection is None or connection.is_closed():
            connection = self._kept[url] = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement, *arguments))
        except BaseException:
            connection.terminate()
            raise
