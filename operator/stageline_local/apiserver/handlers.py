"""HTTP on the API: each method on collections, objects and subresources."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from stageline_local.apiserver import (
    asked,
    decoding,
    discovery,
    events,
    logs,
    openapi,
    subresources,
    tables,
    watching,
)
from stageline_local.apiserver.api import APPLY_PATCH, Api, Options, Target
from stageline_local.apiserver.errors import Refusal, bad_request, expired
from stageline_local.apiserver.kinds import Object
from stageline_local.apiserver.paths import Place, place
from stageline_local.apiserver.writes import DeleteOptions, Deletion


class Handlers:
    """Answers requests; a Refusal that they raise is an answer too."""

    def __init__(self, api: Api, log_path: logs.LogPath) -> None:
        self._api = api
        self._log_path = log_path

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request but those for health."""
        path = request.path
        if request.method == "GET":
            found = discovery.answer(self._api.registry, path)
            if found is None:
                found = openapi.answer(self._api.registry, path)
            if found is not None:
                return _json(found)
        where = place(self._api.registry, path)
        if where.subresource:
            return await self._on_subresource(request, where)
        if where.name:
            return await self._on_object(request, where)
        return await self._on_collection(request, where)

    async def _on_collection(self, request: web.Request, where: Place) -> web.StreamResponse:
        match request.method:
            case "GET" if asked.is_true(request.query.get("watch")):
                return await self._watch(request, where)
            case "GET":
                return self._list(request, where)
            case "POST":
                options = asked.options(request)
                body = await asked.body(request)
                made = self._api.create(_target(where), body, options)
                return self._object(request, where, made, options, status=201)
            case "DELETE":
                return self._delete_all(
                    request, where, asked.delete_options(request, await request.read())
                )
        raise _method_not_allowed()

    async def _on_object(self, request: web.Request, where: Place) -> web.StreamResponse:
        target, options = _target(where), asked.options(request)
        match request.method:
            case "GET" if asked.is_true(request.query.get("watch")):
                return await self._watch(request, where)
            case "GET":
                return self._object(request, where, self._api.get(target), options)
            case "PUT":
                new = self._api.update(target, await asked.body(request), options)
                return self._object(request, where, new, options)
            case "PATCH":
                return await self._patch(request, where, options)
            case "DELETE":
                wishes = asked.delete_options(request, await request.read())
                deletion = self._api.delete(target, wishes, options.dry_run)
                return self._deleted(request, where, deletion, options)
        raise _method_not_allowed()

    async def _patch(
        self, request: web.Request, where: Place, options: Options
    ) -> web.StreamResponse:
        target, body = _target(where), await request.read()
        is_new = self._api.store.get(target.kind, target.key) is None
        new = self._api.patch(target, request.content_type, body, options)
        return self._object(request, where, new, options, status=201 if is_new else 200)

    async def _on_subresource(self, request: web.Request, where: Place) -> web.StreamResponse:
        match where.subresource, request.method:
            case "status", "GET" | "PUT" | "PATCH":
                return await self._on_object(request, where)
            case "scale", "GET" | "PUT" | "PATCH":
                return await self._scale(request, where)
            case "log", "GET":
                return await self._log(request, where)
            case "binding", "POST":
                subresources.bind(self._api, _target(where), await asked.body(request))
                return _json({**_success(), "code": 201}, 201)
            case "eviction", "POST":
                return await self._evict(request, where)
            case "finalize", "PUT":
                options = asked.options(request)
                return _json(self._api.update(_target(where), await asked.body(request), options))
        raise _method_not_allowed()

    def _list(self, request: web.Request, where: Place) -> web.Response:
        kind, query = where.served.kind, request.query
        matches = asked.matches(query, kind)
        watching.parsed_version(query.get("resourceVersion"))
        found = [
            events.served(kind, obj)
            for obj in self._api.store.all(kind, where.namespace)
            if matches(obj)
        ]
        page, meta = self._page(query, found)
        if asked.wants_table(request):
            table = tables.table(where.served, page, asked.included(request))
            return _json({**table, "metadata": meta})
        if not kind.custom:  # as Kubernetes does: the list says it for all
            page = [_without_head(obj) for obj in page]
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
        return _json({**head, "metadata": meta, "items": page})

    def _page(self, query: Mapping[str, str], found: list[Object]) -> tuple[list[Object], Object]:
        """The part of a list that was asked for; `continue` is the version and the place in it."""
        version, start = self._api.store.version, 0
        if token := query.get("continue"):
            said, _, place_in_list = token.partition("-")
            if not (said.isdecimal() and place_in_list.isdecimal()):
                raise bad_request("continue key is not valid: take the one of the list before")
            if int(said) < self._api.store.oldest:
                raise expired(int(said), self._api.store.oldest)
            version, start = int(said), int(place_in_list)
        limit = int(query["limit"]) if query.get("limit", "").isdecimal() else 0
        end = start + limit if limit else len(found)
        meta: Object = {"resourceVersion": str(version)}
        if end < len(found):
            meta |= {"continue": f"{version}-{end}", "remainingItemCount": len(found) - end}
        return found[start:end], meta

    async def _watch(self, request: web.Request, where: Place) -> web.StreamResponse:
        kind, query = where.served.kind, request.query
        matches = asked.matches(query, kind, where.name)
        seconds = query.get("timeoutSeconds", "")
        as_table, included = asked.wants_table(request), asked.included(request)

        def show(obj: Object) -> Object:
            seen = events.served(kind, obj)
            return tables.table(where.served, [seen], included) if as_table else seen

        watch = watching.Watch(
            kind,
            where.namespace,
            matches,
            watching.parsed_version(query.get("resourceVersion")),
            asked.is_true(query.get("allowWatchBookmarks")),
            asked.is_true(query.get("sendInitialEvents")),
            float(seconds) if seconds.isdecimal() else 1800.0,
            show,
        )
        return await watching.serve(request, self._api.store, watch)

    async def _scale(self, request: web.Request, where: Place) -> web.Response:
        target, options = _target(where), asked.options(request)
        live = self._api.get(target)
        scale = subresources.scale(target, live)
        if request.method == "GET":
            return _json(scale)
        if request.method == "PUT":
            wish = await asked.body(request)
        else:
            body = await request.read()
            if request.content_type == APPLY_PATCH:
                wish = decoding.parsed(body, yaml_too=True)
            else:
                wish = self._api.patched(target, request.content_type, body, scale)
        changed = subresources.rescaled(target, live, wish)
        return _json(subresources.scale(target, self._api.update(target, changed, options)))

    async def _log(self, request: web.Request, where: Place) -> web.StreamResponse:
        target = _target(where)
        pod = self._api.get(target)
        wanted = logs.requested(pod, dict(request.query))
        path = self._log_path(*target.key, wanted.container, wanted.previous)
        if path is None:
            name = target.key[1]
            if wanted.previous:
                raise bad_request(
                    f'previous terminated container "{wanted.container}" in pod "{name}" not found'
                )
            raise bad_request(f'container "{wanted.container}" in pod "{name}" is waiting to start')

        def ended() -> bool:
            now = self._api.store.get(target.kind, target.key)
            if wanted.previous or now is None:
                return True
            return now.get("status", {}).get("phase") in ("Succeeded", "Failed")

        return await logs.serve(request, wanted, path, ended)

    async def _evict(self, request: web.Request, where: Place) -> web.Response:
        eviction = await asked.body(request)
        if eviction.get("metadata", {}).get("name", where.name) != where.name:
            raise bad_request("name in URL does not match name in Eviction object")
        options = asked.delete_wishes(eviction.get("deleteOptions") or {}, {})
        subresources.evict(self._api, _target(where), options, asked.options(request).dry_run)
        return _json({**_success(), "code": 201}, 201)

    def _delete_all(
        self, request: web.Request, where: Place, wishes: DeleteOptions
    ) -> web.Response:
        kind = where.served.kind
        matches, options = asked.matches(request.query, kind), asked.options(request)
        gone = []
        for obj in self._api.store.all(kind, where.namespace):
            if matches(obj):
                meta = obj["metadata"]
                target = Target(where.served, (meta.get("namespace", ""), meta["name"]))
                gone.append(self._api.delete(target, wishes, options.dry_run).object)
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
        version = str(self._api.store.version)
        return _json({**head, "metadata": {"resourceVersion": version}, "items": gone})

    def _deleted(
        self, request: web.Request, where: Place, deletion: Deletion, options: Options
    ) -> web.Response:
        """An object that stays for a while is shown; one that is gone at once is a success."""
        kind = where.served.kind
        if not deletion.gone or kind.plural in ("pods", "serviceaccounts", "services"):
            return self._object(request, where, deletion.object, options)
        details = {
            "name": where.name,
            **({"group": kind.group} if kind.group else {}),
            "kind": kind.plural,
            "uid": deletion.object["metadata"]["uid"],
        }
        return _json({**_success(), "details": details})

    def _object(
        self,
        request: web.Request,
        where: Place,
        obj: Object,
        options: Options,
        *,
        status: int = 200,
    ) -> web.Response:
        shown = events.served(where.served.kind, obj)
        if asked.wants_table(request):
            version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            shown = tables.table(where.served, [shown], asked.included(request))
            shown["metadata"] = version
        response = _json(shown, status)
        for warning in options.warnings:
            response.headers.add("Warning", f"299 - {json.dumps(warning)}")
        return response


def _target(where: Place) -> Target:
    kind = where.served.kind
    namespace = (where.namespace or "default") if kind.namespaced else ""
    return Target(where.served, (namespace, where.name), where.subresource)


def _without_head(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}


def _success() -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _method_not_allowed() -> Refusal:
    message = "the server does not allow this method on the requested resource"
    return Refusal(405, "MethodNotAllowed", message, {})


def _json(body: Object, status: int = 200) -> web.Response:
    text = json.dumps(body, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json")
