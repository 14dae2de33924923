"""The two small pages outside the page: the one that asks for the key, and the one that takes it from a link."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">{head}<title>Studio</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; min-height: 90vh; display: grid; place-items: center; margin: 0 1rem; }}
form {{ display: grid; gap: .75rem; width: min(22rem, 100%); }}
input, button {{ font: inherit; padding: .6rem .8rem; border-radius: .5rem; border: 1px solid #8886; }}
button {{ background: #4f46e5; color: #fff; border: 0; cursor: pointer; }}
[role=alert] {{ color: #dc2626; margin: 0; }}
</style></head><body>{body}</body></html>
"""
_FORM = """<form method="post" action="/login"><label for="key">The key was printed when the studio started.</label>
{wrong}
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus placeholder="Key">
<button>Open the studio</button></form>"""
_WRONG = '<p role="alert">That is not the key.</p>'


def form(*, wrong: bool) -> str:
    """The page that asks for the key; `wrong` after one that did not fit."""
    return _PAGE.format(head="", body=_FORM.format(wrong=_WRONG if wrong else ""))


def entering(target: str) -> str:
    """A page that goes on to `target`, an address on this server."""
    address = escape(target)
    head = f'<meta http-equiv="refresh" content="0;url={address}">'
    return _PAGE.format(head=head, body=f'<a href="{address}">Open the studio</a>')
