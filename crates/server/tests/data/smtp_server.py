"""A mail server on loopback, of Debian's python3-aiosmtpd: STARTTLS, AUTH, and letters kept instead of delivered.

    smtp_server.py FOLDER PORT USER PASSWORD

FOLDER holds cert.pem and key.pem, and `mode`, a word that is read anew at each step:

    normal       takes what comes
    no_starttls  offers no STARTTLS (looked at when a connection is made)
    no_auth      refuses every password
    refuse       550 to each recipient
    later        451 to each recipient
    drop         hangs up after the first line of a letter
    stall        stops reading after the first line of a letter, for as long as the mode stays
    lose         takes a letter, and hangs up instead of saying so
    hold         takes a letter, and does not say so as long as the mode stays

It writes what happens into FOLDER/events, an object a line, and `listening` to stdout. It ends with its stdin: whoever
started it may be gone without a word.
"""

import asyncio
import email
import email.policy
import json
import os
import ssl
import sys
import threading

from aiosmtpd.smtp import SMTP, AuthResult

folder, port, user, password = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
events = open(f"{folder}/events", "a", encoding="utf-8", buffering=1)


def mode():
    with open(f"{folder}/mode", encoding="utf-8") as file:
        return file.read().strip()


async def while_mode_is(word):
    while mode() == word:
        await asyncio.sleep(0.01)


def note(kind, **fields):
    # In one write, so that nobody reads half a line.
    events.write(json.dumps({"kind": kind, **fields}) + "\n")


def authenticate(server, session, envelope, mechanism, data):
    good = mode() != "no_auth" and (data.login, data.password) == (user.encode(), password.encode())
    note("auth", good=good, encrypted=session.ssl is not None)
    return AuthResult(success=True, auth_data=data) if good else AuthResult(success=False, handled=False)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        note("rcpt", mode=mode())
        if mode() == "refuse":
            # As real ones do, with the address.
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        if mode() == "later":
            return f"451 4.7.1 <{address}>: Greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if mode() == "hold":
            note("holding")
            await while_mode_is("hold")
        keep(session, envelope)
        if mode() == "lose":
            server.transport.abort()
            raise asyncio.CancelledError
        return "250 2.0.0 OK"


def keep(session, envelope):
    raw = envelope.content
    message = email.message_from_bytes(raw, policy=email.policy.default)

    def part(kind):
        found = message.get_body((kind,))
        return found.get_content() if found else ""

    note(
        "letter",
        encrypted=session.ssl is not None,
        user=session.auth_data.login.decode() if session.auth_data else "",
        sender=envelope.mail_from,
        to=envelope.rcpt_tos,
        raw=raw.decode("utf-8", "replace"),
        headers={name: str(value) for name, value in message.items()},
        types=[part.get_content_type() for part in message.walk()],
        subject=str(message["subject"]),
        text=part("plain"),
        html=part("html"),
    )


class Server(SMTP):
    def data_received(self, data):
        # After STARTTLS the same comes from the TLS layer.
        if self._tls_protocol is None:
            note("clear", bytes=data.decode("latin-1"))
        super().data_received(data)

    async def smtp_DATA(self, arg):
        if mode() not in ("drop", "stall"):
            return await super().smtp_DATA(arg)
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        await self._reader.readline()
        if mode() == "stall":
            note("stalled")
            await while_mode_is("stall")
        note("dropped")
        self.transport.abort()
        raise asyncio.CancelledError


async def main():
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")

    def connected():
        offers_tls = mode() != "no_starttls"
        return Server(
            Handler(),
            hostname="mail.example.com",
            enable_SMTPUTF8=True,
            tls_context=tls if offers_tls else None,
            # One that would take everything in the clear, so that it is the client who does not.
            require_starttls=offers_tls,
            auth_required=offers_tls,
            auth_require_tls=offers_tls,
            authenticator=authenticate,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", port, backlog=512)
    print("listening", flush=True)
    await server.serve_forever()


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
asyncio.run(main())
