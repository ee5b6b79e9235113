"""A study: what is trained and evaluated, as data. Loading one imports no torch, so the Snakefile can do it at once."""

from yarnlab.study.check import find_problems
from yarnlab.study.load import StudyError, load_study
from yarnlab.study.schema import Study
from yarnlab.study.sections import canonical, execution, section, study_digest

__all__ = ["Study", "StudyError", "canonical", "execution", "find_problems", "load_study", "section", "study_digest"]
