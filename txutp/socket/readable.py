"""The reading half of a Socket: flowing and paused, bytes and text, pipes.

``sockets.py`` puts in what arrives (``_take``, ``_take_end``), and sets the transport while there is one.

As in Node.js, nothing flows before the program asks for it: with a listener of ``data``, ``resume``, ``pipe``, or a
coroutine that awaits ``received``.  Until then, and while the socket is paused, one delivery is held here; the
transport holds the rest, and flow control soon stops the peer.  An end behind data is therefore reported after the
data, and an end without data at once.  The end of the connection is such an end, too, whatever its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed

from txutp.socket.encodings import Decoder, decoder_for
from txutp.socket.events import Emitter, SocketEvent
from txutp.socket.program import Handle

if TYPE_CHECKING:
    from typing_extensions import Self


class Writable(Protocol):
    """The destination of a pipe: a Socket, a file, or another object with ``write``."""

    def write(self, data: Any, /) -> object: ...


AnyWritable = TypeVar("AnyWritable", bound=Writable)


class Readable(Handle[SocketEvent]):
    """A source of data, as events or for coroutines."""

    def __init__(self, reactor: Any = None) -> None:
        super().__init__(reactor)
        self._flowing: bool | None = None  # None: the program has asked for neither yet
        self._encoding: str | None = None
        self._pipes: list[Pipe] = []
        self._renew()

    def _renew(self) -> None:
        """Reset the state that belongs to one connection."""
        self.destroyed = False
        self.bytesRead: int = 0
        """Bytes that have arrived, delivered or not."""
        self._problem: BaseException | None = None  # what destroyed us
        self._transport: Any = None  # while connected
        self._held: list[bytes] = []  # arrived while not flowing
        self._behind_held: Callable[[], None] | None = None  # tells the end of the connection
        self._decoder: Decoder | None = None if self._encoding is None else decoder_for(self._encoding)
        self._end_told = False
        for pipe in self._pipes:
            pipe.stop()
        self._pipes.clear()

    def setEncoding(self, encoding: str = "utf8") -> Self:
        """Emit data as str from now on, instead of bytes.  A character may come in several packets."""
        self._decoder = decoder_for(encoding)
        self._encoding = encoding
        return self

    def pause(self) -> Self:
        """Emit no ``data`` until ``resume``; flow control soon stops the peer."""
        self._flowing = False
        return self

    def resume(self) -> Self:
        """Let data flow (again), from the next turn on; without a listener it is lost."""
        self._flowing = True
        self._do_later(self._flow)
        return self

    def isPaused(self) -> bool:
        """Whether it is paused, by ``pause`` or because the destination of a pipe is full."""
        return self._flowing is False

    # -- pipes --

    def pipe(self, destination: AnyWritable, end: bool = True) -> AnyWritable:
        """Write everything that arrives to the destination, as fast as it accepts it; returns the destination.

        The destination is a Socket, a file, or another object with a method ``write``.  If ``write`` returns False,
        the pipe waits for the event ``drain``.  After the last data the pipe calls the destination's ``end``, if there
        is one and unless ``end`` is False here.  A file is left open.
        """
        if not callable(getattr(destination, "write", None)):
            raise TypeError(f"a pipe leads to a Socket, or something else with a method write, not to {destination!r}")
        self._pipes.append(Pipe(self, destination, end))
        return destination

    def unpipe(self, destination: Writable | None = None) -> Self:
        """End the pipe to this destination, or all pipes.  When the last pipe ends, the data stop flowing."""
        gone = [pipe for pipe in self._pipes if destination is None or pipe.destination is destination]
        for pipe in gone:
            self._pipes.remove(pipe)
            pipe.stop()
        if gone and not self.listenerCount("data"):
            self.pause()
        elif any(pipe.full for pipe in gone):
            self._one_less_is_full()
        return self

    def _one_less_is_full(self) -> None:
        """Continue if no destination is full: one of them has room again, or is gone."""
        if not any(pipe.full for pipe in self._pipes):
            self.resume()

    # -- for coroutines --

    def received(self) -> Deferred[Any]:
        """Fires with the next data, or with None when the other side has ended.

        Nothing is read ahead: between two calls no data flow.  It fails with the exception that destroyed the socket,
        or with ``ConnectionClosed``.  With asyncio, await ``received().asFuture(loop)``.
        """
        if self._end_told:
            return defer.succeed(None)
        if self.destroyed:
            return defer.fail(self._why_destroyed())
        receiving = self.when("data", "end")

        def stop(result: Any) -> Any:
            self.pause()
            return result

        receiving.addBoth(stop)
        self.resume()
        return receiving

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        data = await self.received()
        if data is None:
            raise StopAsyncIteration
        return data

    def _why_destroyed(self) -> BaseException:
        """The exception for calls that come after the end."""
        return self._problem or ConnectionClosed("this socket is closed")

    # -- what arrives --

    def _take(self, data: bytes) -> None:
        self.bytesRead += len(data)
        if self._flowing and not self._held:
            self._give(data)
        else:
            self._held.append(data)
            self._transport.pauseProducing()

    def _take_end(self) -> None:
        self._end_told = True
        rest = self._decoder.end() if self._decoder is not None else ""
        if rest:
            self.emit("data", rest)
        self.emit("end")

    def _give(self, data: bytes) -> None:
        text = data if self._decoder is None else self._decoder.write(data)
        if text:
            self.emit("data", text)

    def _flow(self) -> None:
        while self._held and self._flowing and not self.destroyed:
            self._give(self._held.pop(0))
        if not self._flowing or self._held or self._transport is None:
            return
        end, self._behind_held = self._behind_held, None
        if end is None:
            self._transport.resumeProducing()
        else:
            end()

    def _on_added(self, name: str) -> None:
        if name == "data" and self._flowing is None:
            self.resume()


class Pipe:
    """Carries data from a readable to a destination."""

    def __init__(self, source: Readable, destination: Writable, end: bool) -> None:
        self.source = source
        self.destination = destination
        self.full: bool = False  # waits for `drain`
        self._end = end
        self._listeners: list[tuple[Emitter[Any], str, Callable[..., Any]]] = [
            (source, "data", self._data),
            (source, "end", self._ended),
        ]
        if isinstance(destination, Emitter):
            self._listeners += [(destination, "drain", self._drained), (destination, "close", self._closed)]
        for emitter, name, listener in self._listeners:
            emitter.on(name, listener)
        source.resume()

    def stop(self) -> None:
        for emitter, name, listener in self._listeners:
            emitter.off(name, listener)

    def _data(self, data: bytes | str) -> None:
        if self.destination.write(data) is False:
            self.full = True
            self.source.pause()

    def _drained(self) -> None:
        if self.full:
            self.full = False
            self.source._one_less_is_full()

    def _ended(self) -> None:
        end = getattr(self.destination, "end", None)
        if self._end and callable(end):
            end()

    def _closed(self) -> None:
        self.source.unpipe(self.destination)
