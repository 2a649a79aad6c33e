"""Who a request is about: a customer's id, an anonymous one, or both."""

from api.auth import events_allowed
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import check_id


def asked_id(customer_id: str | None, anonymous_id: str | None) -> str:
    """The id that is asked for, of the one or two that are said.

    Raises:
        InvalidInput: An id that can't be one, or a publishable key that would join two.
    """
    if customer_id is not None:
        check_id(customer_id, "/customer_id")
    if anonymous_id is None:
        return customer_id or ""
    check_id(anonymous_id, "/anonymous_id")
    if customer_id is None:
        return anonymous_id
    if events_allowed() is not None:
        raise InvalidInput([FieldError("/anonymous_id", "beside customer_id is not for publishable keys")])
    return customer_id
