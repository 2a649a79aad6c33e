"""Who a request is about: a customer's id, an anonymous one, or both, which joins them."""

from api.auth import events_allowed
from api.state import current_worker
from experiments.errors import FieldError, InvalidInput
from experiments.input.checks import check_id


def read_ids(customer_id: str | None, anonymous_id: str | None) -> str:
    """The id that is asked for; where both are said, they are one person from now on, durably.

    Raises:
        InvalidInput: An id that can't be one, none at all, or a publishable key that would join two.
        JournalBusy: They couldn't be joined now.
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
    current_worker().decider.join(anonymous_id, customer_id)
    return customer_id
