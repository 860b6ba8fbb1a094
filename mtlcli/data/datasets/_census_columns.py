"""Columns of Census-Income: their names in the file, and the encoding of the inputs."""

from __future__ import annotations

import re
from functools import cache

from mtlcli.specs import Column

# Names from the dataset's documentation (`census-income.names`), in the order of the file, which has no header.
_NAMES = """
    age; class of worker; detailed industry recode; detailed occupation recode; education; wage per hour; enroll
    in edu inst last wk; marital stat; major industry code; major occupation code; race; hispanic origin; sex;
    member of a labor union; reason for unemployment; full or part time employment stat; capital gains; capital
    losses; dividends from stocks; tax filer stat; region of previous residence; state of previous residence;
    detailed household and family stat; detailed household summary in household; instance weight; migration
    code-change in msa; migration code-change in reg; migration code-move within reg; live in this house 1 year
    ago; migration prev res in sunbelt; num persons worked for employer; family members under 18; country of
    birth father; country of birth mother; country of birth self; citizenship; own business or self employed;
    fill inc questionnaire for veteran's admin; veterans benefits; weeks worked in year; year; income
"""
NAMES = tuple(" ".join(_NAMES.split()).split("; "))

# Encoding of each input, fitted on the training file. Numeric column: mean, standard deviation, and both of log(1 + x).
# Categorical column: its levels; `a…b` stands for all integers from a to b, `= name` for the levels of another column.
INPUTS = """
age: 34.4941987 22.3108393 3.2597503 0.938789251
class of worker: Federal government; Local government; Never worked; Not in universe; Private;
    Self-employed-incorporated; Self-employed-not incorporated; State government; Without pay
detailed industry recode: 0…51
detailed occupation recode: 0…46
wage per hour: 55.4269082 274.895765 0.381996683 1.56357405
enroll in edu inst last wk: College or university; High school; Not in universe
major industry code: Agriculture; Armed Forces; Business and repair services; Communications; Construction;
    Education; Entertainment; Finance insurance and real estate; Forestry and fisheries; Hospital services;
    Manufacturing-durable goods; Manufacturing-nondurable goods; Medical except hospital; Mining; Not in universe or
    children; Other professional services; Personal services except private HH; Private household services; Public
    administration; Retail trade; Social services; Transportation; Utilities and sanitary services; Wholesale trade
major occupation code: Adm support including clerical; Armed Forces; Executive admin and managerial; Farming
    forestry and fishing; Handlers equip cleaners etc; Machine operators assmblrs & inspctrs; Not in universe; Other
    service; Precision production craft & repair; Private household services; Professional specialty; Protective
    services; Sales; Technicians and related support; Transportation and material moving
race: Amer Indian Aleut or Eskimo; Asian or Pacific Islander; Black; Other; White
hispanic origin: All other; Central or South American; Chicano; Cuban; Do not know; Mexican (Mexicano);
    Mexican-American; NA; Other Spanish; Puerto Rican
sex: Female; Male
member of a labor union: No; Not in universe; Yes
reason for unemployment: Job leaver; Job loser - on layoff; New entrant; Not in universe; Other job loser;
    Re-entrant
full or part time employment stat: Children or Armed Forces; Full-time schedules; Not in labor force; PT for econ
    reasons usually FT; PT for econ reasons usually PT; PT for non-econ reasons usually FT; Unemployed full-time;
    Unemployed part- time
capital gains: 434.71899 4697.51951 0.320613998 1.64865766
capital losses: 37.3137884 271.895747 0.14719189 1.04244297
dividends from stocks: 197.529533 1984.15869 0.604961058 1.88511867
tax filer stat: Head of household; Joint both 65+; Joint both under 65; Joint one under 65 & one 65+; Nonfiler;
    Single
region of previous residence: Abroad; Midwest; Northeast; Not in universe; South; West
state of previous residence: Abroad; Alabama; Alaska; Arizona; Arkansas; California; Colorado; Connecticut;
    Delaware; District of Columbia; Florida; Georgia; Idaho; Illinois; Indiana; Iowa; Kansas; Kentucky; Louisiana;
    Maine; Maryland; Massachusetts; Michigan; Minnesota; Mississippi; Missouri; Montana; Nebraska; Nevada; New
    Hampshire; New Jersey; New Mexico; New York; North Carolina; North Dakota; Not in universe; Ohio; Oklahoma;
    Oregon; Pennsylvania; South Carolina; South Dakota; Tennessee; Texas; Utah; Vermont; Virginia; West Virginia;
    Wisconsin; Wyoming
detailed household and family stat: Child 18+ ever marr Not in a subfamily; Child 18+ ever marr RP of subfamily;
    Child 18+ never marr Not in a subfamily; Child 18+ never marr RP of subfamily; Child 18+ spouse of subfamily RP;
    Child <18 ever marr RP of subfamily; Child <18 ever marr not in subfamily; Child <18 never marr RP of subfamily;
    Child <18 never marr not in subfamily; Child <18 spouse of subfamily RP; Child under 18 of RP of unrel
    subfamily; Grandchild 18+ ever marr RP of subfamily; Grandchild 18+ ever marr not in subfamily; Grandchild 18+
    never marr RP of subfamily; Grandchild 18+ never marr not in subfamily; Grandchild 18+ spouse of subfamily RP;
    Grandchild <18 ever marr not in subfamily; Grandchild <18 never marr RP of subfamily; Grandchild <18 never marr
    child of subfamily RP; Grandchild <18 never marr not in subfamily; Householder; In group quarters; Nonfamily
    householder; Other Rel 18+ ever marr RP of subfamily; Other Rel 18+ ever marr not in subfamily; Other Rel 18+
    never marr RP of subfamily; Other Rel 18+ never marr not in subfamily; Other Rel 18+ spouse of subfamily RP;
    Other Rel <18 ever marr RP of subfamily; Other Rel <18 ever marr not in subfamily; Other Rel <18 never marr
    child of subfamily RP; Other Rel <18 never marr not in subfamily; Other Rel <18 never married RP of subfamily;
    Other Rel <18 spouse of subfamily RP; RP of unrelated subfamily; Secondary individual; Spouse of RP of unrelated
    subfamily; Spouse of householder
detailed household summary in household: Child 18 or older; Child under 18 ever married; Child under 18 never
    married; Group Quarters- Secondary individual; Householder; Nonrelative of householder; Other relative of
    householder; Spouse of householder
migration code-change in msa: Abroad to MSA; Abroad to nonMSA; MSA to MSA; MSA to nonMSA; NonMSA to MSA; NonMSA to
    nonMSA; Nonmover; Not identifiable; Not in universe
migration code-change in reg: Abroad; Different county same state; Different division same region; Different region;
    Different state same division; Nonmover; Not in universe; Same county
migration code-move within reg: Abroad; Different county same state; Different state in Midwest; Different state in
    Northeast; Different state in South; Different state in West; Nonmover; Not in universe; Same county
live in this house 1 year ago: No; Not in universe under 1 year old; Yes
migration prev res in sunbelt: No; Not in universe; Yes
num persons worked for employer: 1.95618049 2.36511958 0.755334232 0.807525494
family members under 18: Both parents present; Father only present; Mother only present; Neither parent present; Not
    in universe
country of birth father: Cambodia; Canada; China; Columbia; Cuba; Dominican-Republic; Ecuador; El-Salvador; England;
    France; Germany; Greece; Guatemala; Haiti; Holand-Netherlands; Honduras; Hong Kong; Hungary; India; Iran;
    Ireland; Italy; Jamaica; Japan; Laos; Mexico; Nicaragua; Outlying-U S (Guam USVI etc); Panama; Peru;
    Philippines; Poland; Portugal; Puerto-Rico; Scotland; South Korea; Taiwan; Thailand; Trinadad&Tobago;
    United-States; Vietnam; Yugoslavia
country of birth mother: = country of birth father
country of birth self: = country of birth father
citizenship: Foreign born- Not a citizen of U S; Foreign born- U S citizen by naturalization; Native- Born abroad of
    American Parent(s); Native- Born in Puerto Rico or U S Outlying; Native- Born in the United States
own business or self employed: 0…2
fill inc questionnaire for veteran's admin: No; Not in universe; Yes
veterans benefits: 0…2
weeks worked in year: 23.1748971 24.411427 1.93169074 1.90275361
year: 94; 95
"""


@cache
def input_columns() -> tuple[Column, ...]:
    """Return the 38 inputs in the order of the file: all columns except education, marital status, weight and income.

    7 are numeric and 31 categorical, as in the dataset's documentation, which calls 33 of the 40 attributes nominal,
    including the codes of industry and occupation and the year.

    Returns:
        The columns.
    """
    levels: dict[str, tuple[str, ...]] = {}
    columns = []
    for entry in re.split(r"\n(?=\S)", INPUTS.strip()):
        name, _, encoding = " ".join(entry.split()).partition(": ")
        if re.fullmatch(r"[\d. ]+", encoding):
            columns.append(Column(name, None, *map(float, encoding.split())))
            continue
        if span := re.fullmatch(r"(\d+)…(\d+)", encoding):
            levels[name] = tuple(map(str, range(int(span[1]), int(span[2]) + 1)))
        else:
            levels[name] = levels[encoding[2:]] if encoding.startswith("= ") else tuple(encoding.split("; "))
        columns.append(Column(name, levels[name]))
    return tuple(columns)
