"""Tokens and endpoints from Keystone, for the sources that need them.

keystoneauth finds the version of the API, logs in, and keeps the token until it is about to expire; then a
poll costs one request, the one for the data.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from keystoneauth1 import access, exceptions
from keystoneauth1.identity import generic
from keystoneauth1.session import Session

from refresh_agent.collectors import http

T = TypeVar("T")

REQUIRED = ("auth_url", "password", "project_id", "user_id")
"""Without these there is no token."""

CREDENTIALS = "user_id, password and project_id"
"""What the Client of such a source is to name as its credentials."""


class Login(NamedTuple):
    """What a request to a service needs: where it is, and the token."""

    endpoint: str
    token: str
    project_id: str


class Keystone:
    """The token of one source. ``options``: those of REQUIRED, and ``region_name`` (empty: any region)."""

    def __init__(self, client: http.Client, options: Mapping[str, Any]) -> None:
        self._client = client
        self._auth_url = _without_version_2(options["auth_url"])
        self._region = options.get("region_name") or None
        self._project = options["project_id"]
        self._plugin = generic.Password(
            self._auth_url,
            user_id=options["user_id"],
            password=options["password"],
            project_id=options["project_id"],
        )
        self._session = Session(
            session=client.session, redirect=http.MOST_REDIRECTS, user_agent=http.USER_AGENT
        )

    def login(self, service_type: str) -> Login:
        """The public endpoint of a service, without a slash at its end. Raises HttpError.

        Asks Keystone only if there is no token, or none that is good for two minutes.
        """
        try:
            found = self._plugin.get_access(self._session)
            endpoint = self._endpoint(found, service_type)
            return Login(endpoint.rstrip("/"), str(found.auth_token), self._project)
        except (exceptions.EndpointNotFound, exceptions.EmptyCatalog):
            raise http.HttpError(self._no_endpoint(service_type)) from None
        except exceptions.ClientException as error:
            raise self._failed(error) from None
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            # keystoneauth takes the answer for what it should be.
            raise http.HttpError(self._no_keystone()) from None

    def authenticated(self, service_type: str, use: Callable[[Login], T]) -> T:
        """What ``use`` gives; it is called once more, with a new token, if the first one was refused.

        A token can end before its time: Keystone's keys or the project's roles changed. Raises HttpError.
        """
        login = self.login(service_type)
        try:
            return use(login)
        except http.HttpError as error:
            if error.status != 401:
                raise
        self._plugin.invalidate()
        return use(self.login(service_type))

    def _endpoint(self, found: access.AccessInfo, service_type: str) -> str:
        endpoint = found.service_catalog.url_for(
            service_type=service_type, interface="public", region_name=self._region
        )
        if not endpoint:
            raise exceptions.EndpointNotFound
        return endpoint

    def _no_endpoint(self, service_type: str) -> str:
        group = self._client.place.group
        region = f" in the region {self._region!r}; check [{group}] region_name" if self._region else ""
        return f"{self._shown()}: its catalog has no public endpoint of type {service_type}{region}"

    def _no_keystone(self) -> str:
        return (
            f"{self._shown()}: does not answer as Keystone does; check [{self._client.place.group}] auth_url"
        )

    def _failed(self, error: exceptions.ClientException) -> http.HttpError:
        for cause in (error, error.__context__):
            if isinstance(cause, exceptions.HttpError) and cause.response is not None:
                return self._client.status_error(cause.response, "there is no Keystone at this auth_url")
        return http.HttpError(self._no_keystone())

    def _shown(self) -> str:
        return http.shown_url(self._auth_url)


def _without_version_2(auth_url: str) -> str:
    """Heat hands out URLs of the v2.0 API, which is gone; os-collect-config asks at the root instead."""
    return auth_url.rstrip("/").removesuffix("/v2.0")
