#include "memory/text/english_irregular.h"

#include <unordered_map>

#include "base/status.h"

namespace longhold {
namespace {

// Groups separated by semicolons: a base form, then its irregular forms. Forms that the stemmer
// reduces to the base anyway (memory/text/vocabulary.cc) are left out. Included are short forms in
// -eth, -est, -ing and -ed, which the stemmer does not change.
constexpr std::string_view kVerbs =
    "abide abode abidden;agree agreed agreeing;arise arose arisen ariseth;ask asketh askest;awake "
    "awoke awoken;"
    "be am is are was were been being beest wast wert;bear bore bare born borne bearest;beat "
    "beaten;become became;"
    "befall befell befallen;beget begat begot begotten;begin began begun;behold beheld "
    "beholden;bend bent;bereave bereft;"
    "beseech besought;bespeak bespoke bespoken;bid bade bidden biddeth;bind bound;bite bit bitten;"
    "bleed bled;blow blew blown;break broke broken brake;breed bred;bring brought broughtest;build "
    "built;burn burnt;buy bought;"
    "can canst;catch caught;chide chid chidden;choose chose chosen;cleave cloven clave;cling "
    "clung;clothe clad;"
    "come came coming cometh comest camest;could couldst couldest;creep crept;cry crieth;deal "
    "dealt;decree decreed decreeing;"
    "die died dies dying dieth diest;dig dug;do did does done doing doth dost doeth doest didst;"
    "draw drew drawn drewest;dream dreamt;drink drank drunk drunken;drive drove driven drave;dwell "
    "dwelt;"
    "eat ate eaten eateth eatest;fall fell fallen;feed fed;feel felt;fight fought;find found "
    "findeth foundest;flee fled fleeing;"
    "fling flung;fly flew flown flieth;forbear forbore forborne forbare;forbid forbade forbad "
    "forbidden;"
    "foresee foresaw foreseen;foretell foretold;forget forgot forgotten forgat;forgive forgave "
    "forgiven;forgo forwent forgone;"
    "forsake forsook forsaken;forswear forswore forsworn;free freed freeing;freeze froze frozen;"
    "get got gotten gat getting getteth;gild gilt;gird girt;give gave given giving giveth givest "
    "gavest;"
    "go went gone goes going goeth goest wentest;grow grew grown;guarantee guaranteed "
    "guaranteeing;hang hung;"
    "hate hateth hatest;have has had having hath hast hadst;hear heard heardest;heave hove;help "
    "holpen;hew hewn;"
    "hide hid hidden hideth hidest;hold held holden;keep kept;kneel knelt;know knew known "
    "knewest;lade laden;"
    "lay laid layeth layest;lead led leddest;lean leant;leap leapt;learn learnt;lend lent;lie lain "
    "lied lies lying lieth liest;"
    "light lit;live liveth livest;lose lost loseth;love loveth lovest;make made maketh makest "
    "madest;may mayest mayst;"
    "mean meant;meet met;might mightest mightst;misgive misgave misgiven;mislead misled;mistake "
    "mistook mistaken;"
    "misunderstand misunderstood;move moveth movest;mow mown;need needest;outgrow outgrew "
    "outgrown;overcome overcame;"
    "overdo overdid overdone;overhear overheard;override overrode overridden;oversee oversaw "
    "overseen;overtake overtook overtaken;"
    "overthrow overthrew overthrown;owe owed owing oweth;partake partook partaken;pay paid;plead "
    "pled;put putting putteth;"
    "read readeth readest;rebuild rebuilt;repay repaid;rewrite rewrote rewritten;rid ridding;ride "
    "rode ridden rideth;"
    "ring rang rung;rise rose risen riseth;rive riven;run ran running runneth ranst;"
    "say said saith sayest saidst sayeth;see saw seen seeing seeth seest sawest;seek sought;sell "
    "sold soldest;send sent sentest;"
    "set setting setteth settest;sew sewn;shake shook shaken;shall shalt;shave shaven;shear "
    "shorn;shed shedding;shine shone;"
    "shoe shod;shoot shot;should shouldst shouldest;show shown shew shewed shewn sheweth shewest "
    "shewing shews;"
    "shrink shrank shrunk shrunken;shrive shrove shriven;sin sinneth;sing sang sung;sink sank sunk "
    "sunken;sit sat sitting sitteth sittest;"
    "slay slew slain slewest;sleep slept;slide slid slidden;sling slung;slink slunk;smell "
    "smelt;smite smote smitten smotest;sow sown;"
    "speak spoke spoken spake spakest;speed sped;spell spelt;spend spent;spill spilt;spin "
    "spun;spit spat;spoil spoilt;"
    "spread spreading;spring sprang sprung;stand stood stoodest;steal stole stolen;stick "
    "stuck;sting stung;"
    "stink stank stunk;strew strewn;stride strode stridden;strike struck stricken strake;string "
    "strung;strive strove striven;"
    "swear swore sworn sware swarest;sweep swept;swell swollen;swim swam swum;swing swung;"
    "take took taken taking taketh takest tookest;teach taught;tear tore torn tare;tell told;think "
    "thought thoughtest;"
    "thrive throve thriven;throw threw thrown;tie tied ties tying;tread trod trodden "
    "trode;typewrite typewrote typewritten;"
    "unbind unbound;undergo underwent undergone underwentest;understand understood;undertake "
    "undertook undertaken;undo undid undone;"
    "upbear upbore upborne;uphold upheld upholden;use used using useth usest;vie vied vies "
    "vying;wake woke woken;wax waxen;"
    "wear wore worn;weave wove woven;weep wept;will wilt;win won;withdraw withdrew withdrawn;"
    "withhold withheld withholden;withstand withstood;work wrought wroughtest;would wouldst "
    "wouldest;wring wrung;"
    "write wrote written writest;"
    // Weak verbs that drop their vowel or e.
    "add added adding;age aged ages aging ageing;ail ailed;aim aimed aimeth;axe axed;dye dyed dyes "
    "dyeing;err erred erring erreth;"
    "eye eyed eyeing;ice iced;singe singeing;"
    // Verbs in -ly, which the stemmer would treat as adverbs.
    "comply complied complies;multiply multiplied multiplies multiplieth;supply supplied supplies "
    "supplieth;"
    // Archaic forms of the present tense.
    "wot wotteth wist;wit witteth";

constexpr std::string_view kNouns =
    "man men;woman women;child children;brother brethren;foot feet;tooth teeth;goose geese;mouse "
    "mice;louse lice;ox oxen;cow kine;"
    "penny pence;hose hosen;eye eyen;shoe shoon;"
    // -man
    "airman airmen;alderman aldermen;ambulanceman ambulancemen;anchorman anchormen;axeman "
    "axemen;boatman boatmen;bondman bondmen;"
    "bondwoman bondwomen;bowman bowmen;bushman bushmen;businessman businessmen;businesswoman "
    "businesswomen;cabman cabmen;"
    "cameraman cameramen;cavalryman cavalrymen;chairman chairmen;churchman churchmen;clansman "
    "clansmen;clergyman clergymen;"
    "coachman coachmen;congressman congressmen;councilman councilmen;countryman "
    "countrymen;countrywoman countrywomen;cowman cowmen;"
    "craftsman craftsmen;doorman doormen;draughtsman draughtsmen;dutchman dutchmen;englishman "
    "englishmen;englishwoman englishwomen;"
    "fireman firemen;fisherman fishermen;footman footmen;foreman foremen;frenchman "
    "frenchmen;frenchwoman frenchwomen;freeman freemen;"
    "freshman freshmen;gentleman gentlemen;gentlewoman gentlewomen;guardsman guardsmen;gunman "
    "gunmen;handyman handymen;"
    "hangman hangmen;helmsman helmsmen;henchman henchmen;herdman herdmen;herdsman "
    "herdsmen;highwayman highwaymen;horseman horsemen;"
    "huntsman huntsmen;husbandman husbandmen;infantryman infantrymen;irishman irishmen;juryman "
    "jurymen;kinsman kinsmen;"
    "kinswoman kinswomen;landsman landsmen;lawman lawmen;layman laymen;lumberman lumbermen;madman "
    "madmen;"
    "marksman marksmen;merchantman merchantmen;middleman middlemen;militiaman militiamen;milkman "
    "milkmen;minuteman minutemen;"
    "newsman newsmen;nobleman noblemen;norseman norsemen;oarsman oarsmen;ombudsman "
    "ombudsmen;patrolman patrolmen;pikeman pikemen;"
    "ploughman ploughmen;policeman policemen;policewoman policewomen;postman postmen;salesman "
    "salesmen;saleswoman saleswomen;"
    "schoolman schoolmen;scotchman scotchmen;scotsman scotsmen;seaman seamen;serviceman "
    "servicemen;servingman servingmen;"
    "showman showmen;snowman snowmen;spearman spearmen;spokesman spokesmen;spokeswoman "
    "spokeswomen;sportsman sportsmen;"
    "statesman statesmen;steersman steersmen;swordsman swordsmen;townsman townsmen;tradesman "
    "tradesmen;tribesman tribesmen;"
    "vestryman vestrymen;washerwoman washerwomen;watchman watchmen;waterman watermen;welshman "
    "welshmen;woodman woodmen;"
    "woodsman woodsmen;workman workmen;yachtsman yachtsmen;yeoman yeomen;"
    // Compounds of the nouns above.
    "forefoot forefeet;godchild godchildren;grandchild grandchildren;schoolchild "
    "schoolchildren;stepchild stepchildren;"
    "eyetooth eyeteeth;dormouse dormice;"
    // f and v
    "beef beeves;calf calves;dwarf dwarves;elf elves;half halves;hoof hooves;housewife "
    "housewives;knife knives;loaf loaves;"
    "midwife midwives;scarf scarves;self selves;sheaf sheaves;shelf shelves;staff staves;thief "
    "thieves;turf turves;wharf wharves;"
    "wife wives;wolf wolves;werewolf werewolves;themself themselves;ourself ourselves;yourself "
    "yourselves;"
    // -y and -ey
    "ally allies allied;anomaly anomalies;assembly assemblies;butterfly butterflies;dragonfly "
    "dragonflies;family families;"
    "homily homilies;monopoly monopolies;money monies;"
    // Greek, Latin and French plurals
    "alga algae;alumnus alumni;amoeba amoebae;analysis analyses;antenna antennae;antithesis "
    "antitheses;appendix appendices;"
    "automaton automata;bacillus bacilli;bacterium bacteria;beau beaux;bureau bureaux;cactus cacti;"
    "cherub cherubim cherubims;chateau chateaux;codex codices;corpus corpora;crisis "
    "crises;criterion criteria;curriculum curricula;"
    "diagnosis diagnoses;ellipsis ellipses;emphasis emphases;erratum errata;focus foci;formula "
    "formulae;fungus fungi;genus genera;"
    "hypothesis hypotheses;index indices;larva larvae;locus loci;matrix matrices;memorandum "
    "memoranda;"
    "metamorphosis metamorphoses;minutia minutiae;moratorium moratoria;nebula nebulae;nucleus "
    "nuclei;oasis oases;ovum ova;"
    "parenthesis parentheses;phenomenon phenomena;plateau plateaux;prognosis prognoses;radius "
    "radii;schema schemata;"
    "seraph seraphim seraphims;stigma stigmata;stimulus stimuli;stratum strata;syllabus "
    "syllabi;symposium symposia;synopsis synopses;"
    "synthesis syntheses;tableau tableaux;terminus termini;thesis theses;vertebra vertebrae;vertex "
    "vertices;virtuoso virtuosi;"
    "vortex vortices";

class Table {
 public:
  Table() {
    AddGroups(kVerbs);
    AddGroups(kNouns);
    for (const auto& [form, base] : base_of_) LH_CHECK(form != base && base_of_.count(base) == 0);
  }
  std::string_view BaseOf(std::string_view word) const {
    const auto it = base_of_.find(word);
    return it == base_of_.end() ? std::string_view() : it->second;
  }
  size_t size() const { return base_of_.size(); }

 private:
  void AddGroups(std::string_view groups) {
    while (!groups.empty()) {
      AddGroup(Take(groups, ';'));
    }
  }
  void AddGroup(std::string_view group) {
    const std::string_view base = Take(group, ' ');
    // Each form belongs to one base only.
    while (!group.empty()) LH_CHECK(base_of_.emplace(Take(group, ' '), base).second);
  }
  // Removes the text before the first `separator`, and the separator, from `text`. Returns that
  // text.
  static std::string_view Take(std::string_view& text, char separator) {
    const size_t end = text.find(separator);
    const std::string_view part = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return part;
  }

  std::unordered_map<std::string_view, std::string_view> base_of_;
};

const Table& Irregular() {
  static const Table table;
  return table;
}

}  // namespace

std::string_view EnglishBaseForm(std::string_view word) { return Irregular().BaseOf(word); }

size_t EnglishIrregularCount() { return Irregular().size(); }

}  // namespace longhold
