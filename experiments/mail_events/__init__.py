"""What senders of email report by webhook: checked, read, told apart from machines, written as outcomes."""
