"""Frames over HTTP: an asyncio service on Starlette and uvicorn, with uringblob beneath.

Run it, and load it from a second terminal (extra ``uringblob[examples]``)::

    cd examples
    python -m blob_service /var/tmp/service.blobs --port 8000
    python -m blob_service.load http://127.0.0.1:8000 --seconds 10

======================  ==========================================================================
``PUT /frames/{id}``    store a body of up to one frame; 201 (new) or 204; durable when answered
``GET /frames/{id}``    the body, with its ETag; 304 for a matching If-None-Match, without I/O
``HEAD /frames/{id}``   the same without the body; one block is read
``DELETE /frames/{id}`` 204; durable when answered
``GET /frames``         names in order, in pages: ``?after=ID&limit=1000``
``GET /healthz``        200 while changes are accepted, else 503
``GET /metrics``        Prometheus
======================  ==========================================================================

404: no such frame.  409: another change of this name came first.  412: If-Match or
If-None-Match does not hold.  413: more than a frame.  503 with Retry-After: as many requests as
are allowed are in progress; nothing waits in a queue.  507: the disk is full.

``app`` has the routes, ``bodies`` puts a body into a frame, ``admission`` bounds what is under
way, ``scrub`` reads everything once a week, ``answers`` turns the store's errors into statuses,
``__main__`` serves, ``load`` is the load generator.
"""
