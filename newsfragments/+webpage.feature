A page to send and receive from a browser, at `/api/v1/pipe`, with scripts and (`/api/v1/pipe/noscript`) without. A form's field `hoody-text` is sent on as text.
