"""Every table of the service. DESIGN words name them; constraints repeat the rules that code checks first.

Hot tables (decision, outcome, attribution, response, tallies) carry no foreign keys: the journal writes them in bulk,
and the series number at the front of each decision id ties them together. Money is exact (``ExactNumber``), times are
aware UTC.
"""

from experiments.tables.definitions import (
    Allocation,
    Definition,
    Experiment,
    Override,
    PolicyVersion,
    Series,
    SeriesVariant,
    VariantPause,
    Workspace,
)
from experiments.tables.journal import Alias, Attribution, Customer, Decision, DecisionAlias, Outcome, Response
from experiments.tables.mail import Intake, MailMessage, MailToken
from experiments.tables.records import Analysis, AnalysisModel, ApiKey, Audit, Correction, Idempotency, Lease
from experiments.tables.tallies import (
    Tally,
    TallyAge,
    TallyChange,
    TallyCovariate,
    TallyDay,
    TallyExposure,
    TallyProduct,
    TallyResponse,
)
from experiments.tables.webhooks import VerdictsTold, Webhook, WebhookDelivery, WebhookMessage

__all__ = [
    "Alias",
    "Allocation",
    "Analysis",
    "AnalysisModel",
    "ApiKey",
    "Attribution",
    "Audit",
    "Correction",
    "Customer",
    "Decision",
    "DecisionAlias",
    "Definition",
    "Experiment",
    "Idempotency",
    "Intake",
    "Lease",
    "MailMessage",
    "MailToken",
    "Outcome",
    "Override",
    "PolicyVersion",
    "Response",
    "Series",
    "SeriesVariant",
    "Tally",
    "TallyAge",
    "TallyChange",
    "TallyCovariate",
    "TallyDay",
    "TallyExposure",
    "TallyProduct",
    "TallyResponse",
    "VariantPause",
    "VerdictsTold",
    "Webhook",
    "WebhookDelivery",
    "WebhookMessage",
    "Workspace",
]
