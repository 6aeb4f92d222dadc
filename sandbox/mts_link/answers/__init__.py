"""What the server answers: one module a group of methods."""

from sandbox.mts_link.answers.addressbook import AddressBook
from sandbox.mts_link.answers.chats import Chats
from sandbox.mts_link.answers.events import Events
from sandbox.mts_link.answers.files import Files
from sandbox.mts_link.answers.organisation import Organisation
from sandbox.mts_link.answers.sessions import Sessions
from sandbox.mts_link.answers.statistics import Statistics
from sandbox.mts_link.answers.tests import Tests


class Answers(AddressBook, Chats, Events, Sessions, Statistics, Files, Organisation, Tests):
    """All methods by name; `routes` says which path is which."""
